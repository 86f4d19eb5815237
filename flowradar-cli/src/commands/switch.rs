//! `switch`: an embedded P4 switch on network interfaces.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use flowradar_p4::{PipelineConfig, Program};
use flowradar_switch::SwitchConfig;
use flowradar_switch::server::{RunOptions, RunningSwitch, ServerConfig, TlsIdentity};

use crate::outcome::{CommandError, Completeness};
use crate::text::{counted, note};

/// Run a P4 switch on network interfaces, controlled through P4Runtime
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs what p4c-bm2-ss makes of v1model programs; docs/switch.md says which constructs are supported.

Examples:
  flowradar switch --port 1@veth1 --port 2@veth2 --grpc 127.0.0.1:9559
                                        wait for a controller to load a program
  flowradar switch --port 1@veth1 --reference
                                        run the project's own switch from the start")]
pub(crate) struct SwitchArgs {
    /// A port's number and its network interface; may be given more than once
    #[arg(long = "port", short = 'i', value_name = "N@INTERFACE", value_parser = parse_port)]
    ports: Vec<(u16, String)>,

    /// Where P4Runtime is served
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9559")]
    grpc: SocketAddr,

    /// What controllers call the switch
    #[arg(long, value_name = "ID", default_value_t = 1)]
    device_id: u64,

    /// Number of the port to the controller
    #[arg(long, value_name = "N", default_value_t = 510)]
    cpu_port: u16,

    /// Number of the port that drops
    #[arg(long, value_name = "N", default_value_t = 511)]
    drop_port: u16,

    /// Run the reference program from the start
    #[arg(long, conflicts_with = "json")]
    reference: bool,

    /// Run this program from the start: JSON that p4c-bm2-ss has written
    #[arg(long, value_name = "FILE", requires = "p4info")]
    json: Option<PathBuf>,

    /// P4Info of the program, in text format
    #[arg(long, value_name = "FILE", requires = "json")]
    p4info: Option<PathBuf>,

    /// Certificate for TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// Private key for TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

pub(crate) fn run(args: &SwitchArgs) -> Result<Completeness, CommandError> {
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let mut running = RunningSwitch::start(options)
            .await
            .map_err(|error| failed(&error))?;
        note!(
            "device {} with {}, P4Runtime at {}",
            args.device_id,
            counted(args.ports.len() as u64, "port"),
            running.server().address()
        );
        let mut is_complete = true;
        loop {
            tokio::select! {
                stop = tokio::signal::ctrl_c() => {
                    stop.map_err(|error| failed(&error))?;
                    break;
                }
                Some(lost) = running.lost_port() => {
                    note!("{lost}; the other ports go on");
                    is_complete = false;
                }
            }
        }
        for (port, statistics) in running.port_statistics() {
            note!(
                "port {port}: {} in ({} lost), {} out ({} lost)",
                counted(statistics.frames_in, "frame"),
                statistics.dropped_in,
                counted(statistics.frames_out, "frame"),
                statistics.dropped_out
            );
        }
        Ok(Completeness::of(is_complete))
    })
}

fn options(args: &SwitchArgs) -> Result<RunOptions, CommandError> {
    let pipeline = match (&args.json, &args.p4info) {
        (Some(json), Some(p4info)) => {
            let text = String::from_utf8(read(p4info)?);
            let text = text.map_err(|error| failed(&error))?;
            let config = PipelineConfig::new(&read(json)?, &text);
            Some(config.map_err(|error| failed(&error))?)
        }
        _ if args.reference => Some(Program::reference().pipeline),
        _ => None,
    };
    let tls = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsIdentity {
            certificates_pem: read(certificate)?,
            private_key_pem: read(key)?,
        }),
        _ => None,
    };
    let mut switch = SwitchConfig {
        cpu_port: Some(args.cpu_port),
        ..SwitchConfig::default()
    };
    switch.pipeline.drop_port = args.drop_port;
    Ok(RunOptions {
        ports: args.ports.clone(),
        grpc: args.grpc,
        switch,
        server: ServerConfig {
            device_id: args.device_id,
            tls,
            ..ServerConfig::default()
        },
        pipeline: pipeline.map(|pipeline| pipeline.message()),
    })
}

fn parse_port(text: &str) -> Result<(u16, String), String> {
    let parsed = text.split_once('@').and_then(|(number, interface)| {
        let number = number.parse().ok()?;
        (!interface.is_empty()).then(|| (number, interface.to_owned()))
    });
    parsed.ok_or_else(|| "give the port's number and its interface, as in 1@veth1".to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(CommandError::file("read", path))
}

fn failed(error: &dyn std::error::Error) -> CommandError {
    CommandError::Failed(error.to_string())
}
