//! The configuration: one TOML file.
//!
//! Every value has a default; an empty file is a collector for trying things out, on this machine only.
//! `docs/collector.md` lists them all. Unknown names are errors: a typing error shall not be a default.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowradar_core::flowset::SwitchName;
use serde::{Deserialize, Deserializer};

use crate::epoch::{GrouperOptions, Overload};
use crate::ingest::{Identities, Identity, IngestOptions, Secret};
use crate::journal::JournalOptions;
use crate::store::MaintenanceOptions;

/// Epochs in which packets may be in flight at most: analyses settle an epoch when the next one has come.
const IN_FLIGHT_EPOCHS_MAX: u8 = 1;
/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A collector's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder for journal and store.
    pub data_folder: PathBuf,
    /// Agents' streams.
    pub ingest: IngestConfig,
    /// The drop folder.
    pub drop_folder: Option<DropFolderConfig>,
    /// The journal.
    pub journal: JournalConfig,
    /// Epochs and decoding.
    pub epochs: EpochsConfig,
    /// The store.
    pub store: StoreConfig,
    /// The API.
    pub api: ApiConfig,
    /// NetFlow, IPFIX and sFlow.
    pub classic: ClassicConfig,
    /// Analyses.
    pub analysis: AnalysisConfig,
    /// A webhook for events.
    pub webhook: Option<WebhookConfig>,
    /// Export of decoded flows by IPFIX.
    pub export: Option<ExportConfig>,
}

/// Agents' streams.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// TLS.
    pub tls: Option<TlsConfig>,
    /// Whether agents need not show who they are, for switches that are not listed below. Only on a
    /// loopback address, or with client certificates asked for.
    pub open: bool,
    /// Switches, and who may report for them.
    pub switches: Vec<SwitchConfig>,
    /// Switches that are taken at most.
    pub switches_max: usize,
    /// Connections at most.
    pub connections_max: usize,
    /// Largest flowset.
    pub flowset_bytes_max: u64,
    /// Flowsets of a switch on their way.
    pub window: u32,
    /// Bytes a second and switch; 0: no limit.
    pub switch_bytes_per_second_max: u64,
    /// How long a stream waits for the journal before it is refused.
    pub stall_ms: u64,
}

/// TLS of ingest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The collector's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Certificates that sign agents' certificates, PEM: agents must have one then.
    pub client_ca: Option<PathBuf>,
}

/// A switch, and who may report for it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchConfig {
    /// The switch.
    #[serde(deserialize_with = "switch_name")]
    pub name: SwitchName,
    /// File with its token.
    pub token_file: Option<PathBuf>,
    /// Its token.
    pub token: Option<Secret>,
    /// DNS name in its agent's certificate, if it is not its own name.
    pub certificate_name: Option<String>,
}

/// The drop folder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropFolderConfig {
    /// The folder.
    pub path: PathBuf,
    /// How often it is looked at.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
}

/// The journal.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Size of all together at most.
    pub bytes_max: u64,
}

/// Epochs and decoding.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EpochsConfig {
    /// From an epoch's first report to its decode, whoever is missing.
    pub deadline_ms: u64,
    /// From an epoch's decode until late reports are too late.
    pub late_ms: u64,
    /// How long a silent switch is expected to report.
    pub expected_ms: u64,
    /// Epochs known at the same time at most.
    pub groups_max: usize,
    /// Epochs decoded at the same time; 0: as many as there are processors.
    pub decodes_max: usize,
    /// Epochs waiting to be decoded, beyond which decoding lags behind.
    pub waiting_max: usize,
    /// What is done then.
    pub overload: Overload,
    /// An epoch that only one switch reports, and that is further than this from those of all others, is
    /// not analysed, and not waited for; 0: no limit.
    pub apart_max: u64,
}

/// The store.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// How long rows wait in memory.
    pub flush_ms: u64,
    /// So many rows are written at once, even before that.
    pub flush_rows: usize,
    /// How long rows are kept; 0: for ever.
    pub keep_hours: u64,
    /// Size of all files together at most; 0: no limit.
    pub bytes_max: u64,
    /// How often small files are merged and old ones removed.
    pub maintain_ms: u64,
}

/// The API.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// File with the token for requests that change something; without one there are none.
    pub token_file: Option<PathBuf>,
    /// Token for requests that change something.
    pub token: Option<Secret>,
    /// Rows that a request looks at at most.
    pub scan_rows_max: u64,
    /// Streams of live events at the same time.
    pub live_streams_max: usize,
}

/// NetFlow, NetStream, IPFIX and sFlow.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassicConfig {
    /// Address for NetFlow, NetStream and IPFIX over UDP; none: do not listen.
    pub netflow: Option<SocketAddr>,
    /// Address for sFlow over UDP; none: do not listen.
    pub sflow: Option<SocketAddr>,
}

/// Analyses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnalysisConfig {
    /// Whether to analyse.
    pub enabled: bool,
    /// The network, JSON or TOML; without it only traffic and attacks are analysed.
    pub network: Option<PathBuf>,
    /// Epochs after which a packet on its way has been counted further on: 1, or 0 where switches stamp
    /// the epoch into packets.
    pub in_flight_epochs: Option<u8>,
}

/// A webhook for events.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where events are posted as JSON.
    pub url: Secret,
    /// Longest wait for an answer.
    #[serde(default = "default_webhook_timeout_ms")]
    pub timeout_ms: u64,
    /// The least severity told.
    #[serde(default = "default_severity")]
    pub severity: flowradar_collector::analysis::Severity,
}

/// Export of decoded flows by IPFIX.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// The collector that is exported to.
    pub to: SocketAddr,
    /// UDP or TCP.
    #[serde(default)]
    pub protocol: ExportProtocol,
    /// Observation domain.
    #[serde(default = "default_domain")]
    pub domain: u32,
    /// How often templates are sent again over UDP.
    #[serde(default = "default_template_ms")]
    pub template_ms: u64,
    /// Exporter address in every record.
    pub exporter: Option<std::net::IpAddr>,
}

/// How records are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportProtocol {
    /// Over TCP.
    Tcp,
    /// Over UDP.
    #[default]
    Udp,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// It is no TOML, or a name or value is wrong.
    #[error("{0}")]
    Syntax(String),
    /// Values do not go together.
    #[error("{name}: {reason}")]
    Value {
        /// Which.
        name: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

impl Config {
    /// Reads a configuration file and checks it, with the files that it names.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&read_text(path)?)?;
        config.load_secrets()?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration. Does not look at other files.
    ///
    /// # Errors
    /// If it is no TOML, or a name or value is wrong. Messages do not quote it: it may hold secrets.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let before = text.get(..error.span().map_or(0, |span| span.start));
            let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
            ConfigError::Syntax(format!("line {line}: {}", error.message()))
        })
    }

    /// Checks that values go together.
    ///
    /// # Errors
    /// If they do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |name, reason: &str| {
            Err(ConfigError::Value {
                name,
                reason: reason.to_owned(),
            })
        };
        let ingest = &self.ingest;
        let proves = ingest
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some());
        if ingest.open && !ingest.listen.ip().is_loopback() && !proves {
            return wrong(
                "ingest.open",
                "anybody in the network could report for any switch: set it to false and list the \
                 switches with tokens, or ask for client certificates (ingest.tls.client_ca)",
            );
        }
        let tokens = ingest.switches.iter().any(|switch| switch.token.is_some());
        if tokens && ingest.tls.is_none() && !ingest.listen.ip().is_loopback() {
            return wrong(
                "ingest.switches",
                "tokens would go over the network in clear text: add [ingest.tls], or listen on a loopback address",
            );
        }
        if self.journal.segment_bytes < 1 << 16
            || self.journal.bytes_max < 4 * self.journal.segment_bytes
        {
            return wrong(
                "journal",
                "segment_bytes must be 65536 or more, and bytes_max at least four times as much",
            );
        }
        if ingest.flowset_bytes_max >= self.journal.bytes_max
            || ingest.flowset_bytes_max > crate::journal::RECORD_BYTES_MAX as u64 / 2
        {
            return wrong(
                "ingest.flowset_bytes_max",
                "it must be less than journal.bytes_max, and 512 MiB at most",
            );
        }
        if ingest.window == 0 || ingest.switches_max == 0 || ingest.connections_max == 0 {
            return wrong(
                "ingest",
                "window, switches_max and connections_max must not be 0",
            );
        }
        if self.epochs.groups_max == 0 || self.store.flush_rows == 0 {
            return wrong("epochs.groups_max, store.flush_rows", "must not be 0");
        }
        if self
            .analysis
            .in_flight_epochs
            .is_some_and(|epochs| epochs > IN_FLIGHT_EPOCHS_MAX)
        {
            return wrong(
                "analysis.in_flight_epochs",
                "packets that are in flight for longer than an epoch cannot be told from lost ones: use 1, or \
                 0 where switches stamp the epoch into packets, or longer epochs",
            );
        }
        if self.store.flush_ms == 0 || self.store.maintain_ms == 0 {
            return wrong("store.flush_ms, store.maintain_ms", "must not be 0");
        }
        Ok(())
    }

    /// Who may report for which switch.
    pub fn identities(&self) -> Identities {
        let identities = self.ingest.switches.iter().map(|switch| Identity {
            switch: switch.name.clone(),
            token: switch.token.clone(),
            certificate_name: switch.certificate_name.clone(),
        });
        Identities::new(identities, self.ingest.open)
    }

    /// Limits of ingest.
    pub fn ingest_options(&self) -> IngestOptions {
        IngestOptions {
            flowset_bytes_max: self.ingest.flowset_bytes_max,
            window: self.ingest.window,
            switch_bytes_per_second_max: self.ingest.switch_bytes_per_second_max,
            stall: Duration::from_millis(self.ingest.stall_ms),
        }
    }

    /// Sizes of the journal.
    pub fn journal_options(&self) -> JournalOptions {
        JournalOptions {
            segment_bytes: self.journal.segment_bytes,
            bytes_max: self.journal.bytes_max,
        }
    }

    /// Limits of grouping.
    pub fn grouper_options(&self) -> GrouperOptions {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        GrouperOptions {
            deadline: Duration::from_millis(self.epochs.deadline_ms),
            late: Duration::from_millis(self.epochs.late_ms),
            expected: Duration::from_millis(self.epochs.expected_ms),
            groups_max: self.epochs.groups_max,
            decodes_max: match self.epochs.decodes_max {
                0 => processors,
                decodes => decodes,
            },
            waiting_max: self.epochs.waiting_max,
            overload: self.epochs.overload,
            apart_max: self.epochs.apart_max,
        }
    }

    /// How the store is kept in order.
    pub fn maintenance_options(&self) -> MaintenanceOptions {
        // Until an epoch is closed it may be decoded again, and it is stored for some time before that.
        let open_ms = self.epochs.deadline_ms.saturating_add(self.epochs.late_ms);
        MaintenanceOptions {
            keep_ns: self.store.keep_hours.saturating_mul(3_600_000_000_000),
            bytes_max: self.store.bytes_max,
            settle_ns: open_ms
                .saturating_add(self.store.flush_ms)
                .saturating_mul(1_000_000),
        }
    }

    /// The folder of the journal.
    pub fn journal_folder(&self) -> PathBuf {
        self.data_folder.join("journal")
    }

    /// The folder of the store.
    pub fn store_folder(&self) -> PathBuf {
        self.data_folder.join("flows")
    }

    fn load_secrets(&mut self) -> Result<(), ConfigError> {
        for switch in &mut self.ingest.switches {
            load_secret(&mut switch.token, switch.token_file.as_deref())?;
        }
        load_secret(&mut self.api.token, self.api.token_file.as_deref())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_folder: "flowradar-data".into(),
            ingest: IngestConfig::default(),
            drop_folder: None,
            journal: JournalConfig::default(),
            epochs: EpochsConfig::default(),
            store: StoreConfig::default(),
            api: ApiConfig::default(),
            classic: ClassicConfig::default(),
            analysis: AnalysisConfig::default(),
            webhook: None,
            export: None,
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4741)),
            tls: None,
            open: true,
            switches: vec![],
            switches_max: 4096,
            connections_max: 1024,
            flowset_bytes_max: 256 << 20,
            window: 16,
            switch_bytes_per_second_max: 0,
            stall_ms: 30_000,
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        let JournalOptions {
            segment_bytes,
            bytes_max,
        } = JournalOptions::default();
        Self {
            segment_bytes,
            bytes_max,
        }
    }
}

impl Default for EpochsConfig {
    fn default() -> Self {
        Self {
            deadline_ms: 1_000,
            late_ms: 10_000,
            expected_ms: 10_000,
            groups_max: 4096,
            decodes_max: 0,
            waiting_max: 8,
            overload: Overload::SingleDecode,
            apart_max: 1_000,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            flush_ms: 5_000,
            flush_rows: 1 << 20,
            keep_hours: 24 * 7,
            bytes_max: 100 << 30,
            maintain_ms: 60_000,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4780)),
            token_file: None,
            token: None,
            scan_rows_max: 200_000_000,
            live_streams_max: 256,
        }
    }
}

impl Default for AnalysisConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            network: None,
            in_flight_epochs: None,
        }
    }
}

/// Reads a file, up to a size that no configuration has.
fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("too large for a configuration")));
    }
    fs::read_to_string(path).map_err(failed)
}

fn load_secret(secret: &mut Option<Secret>, file: Option<&Path>) -> Result<(), ConfigError> {
    if let Some(path) = file {
        *secret = Some(Secret::new(read_text(path)?.trim()));
    }
    Ok(())
}

fn switch_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SwitchName, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(serde::de::Error::custom)
}

fn default_poll_ms() -> u64 {
    500
}

fn default_webhook_timeout_ms() -> u64 {
    5_000
}

fn default_severity() -> flowradar_collector::analysis::Severity {
    flowradar_collector::analysis::Severity::Warning
}

fn default_domain() -> u32 {
    1
}

fn default_template_ms() -> u64 {
    60_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_collector_on_this_machine() {
        let config = Config::parse("").expect("all has defaults");
        assert_eq!(config, Config::default());
        config.check().expect("defaults go together");
        assert!(config.ingest.listen.ip().is_loopback() && config.api.listen.ip().is_loopback());
    }

    #[test]
    fn typing_errors_are_errors_and_secrets_are_not_quoted() {
        let error = Config::parse("[ingest]\nlisten_on = \"[::]:1\"\n").expect_err("a wrong name");
        assert!(
            error
                .to_string()
                .starts_with("line 2: unknown field `listen_on`"),
            "{error}"
        );
        let text = "[[ingest.switches]]\nname = \"leaf-1\"\ntoken = \"hunter2\"\ntoken = 3\n";
        let error = Config::parse(text).expect_err("a token twice");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let text = "[[ingest.switches]]\nname = \"leaf 1\"";
        assert!(Config::parse(text).is_err());
    }

    #[test]
    fn packets_are_in_flight_for_an_epoch_at_most() {
        let check = |epochs: u8| {
            let text = format!("analysis.in_flight_epochs = {epochs}");
            Config::parse(&text).expect("TOML").check()
        };
        for epochs in [0, 1] {
            check(epochs).expect("these are what there is");
        }
        let error = check(2).expect_err("analyses would take it for 1");
        assert!(error.to_string().starts_with("analysis.in_flight_epochs: "));
    }

    #[test]
    fn ingest_from_the_network_wants_proof() {
        let check = |text: &str| Config::parse(text).expect("TOML").check();
        let reason = |text: &str| check(text).expect_err("not safe").to_string();
        assert!(reason("ingest.listen = \"0.0.0.0:4741\"").starts_with("ingest.open"));
        let tls = "ingest.tls = {certificate = \"c\", key = \"k\", client_ca = \"a\"}";
        check(&format!("ingest.listen = \"0.0.0.0:4741\"\n{tls}")).expect("certificates prove");
        let switches = "ingest.switches = [{name = \"a\", token = \"t\"}]";
        let open = "ingest.listen = \"0.0.0.0:4741\"\ningest.open = false";
        assert!(reason(&format!("{open}\n{switches}")).starts_with("ingest.switches"));
        let tls = "ingest.tls = {certificate = \"c\", key = \"k\"}";
        check(&format!("{open}\n{switches}\n{tls}")).expect("tokens prove");
    }

    #[test]
    fn tokens_may_come_from_files() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let token = folder.path().join("token");
        fs::write(&token, "hunter2\n").expect("space");
        let path = folder.path().join("collector.toml");
        let text = format!("api.token_file = {:?}", token.display().to_string());
        fs::write(&path, text).expect("space");
        let config = Config::read(&path).expect("a configuration");
        assert_eq!(config.api.token, Some(Secret::new("hunter2")));
        fs::remove_file(&token).expect("it is there");
        assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
    }
}
