//! What is wrong with a configuration is said, with its place and what to do: every message once.

use flowradar_balancer::config::{
    CollectorConfig, Compiled, Config, ConfigError, DestinationIds, PolicyName, ProbeConfig,
    SourceAddress,
};
use flowradar_balancer::engine::AssignmentUnit;
use flowradar_balancer::policy::Policy;

const GOOD: &str = r#"
[listen]
addresses = ["127.0.0.1:2055"]

[health]
interval_ms = 250

[streams]
message_bytes = 1400

[limits]
exporters = 100

[[collector]]
name = "a"
address = "10.0.0.1:2055"
weight = 1.0

[[collector]]
name = "b"
address = "10.0.0.2:2055"
probe = { type = "http", url = "http://10.0.0.2:80/health", load_field = "load" }

[[collector_group]]
name = "core"
collectors = ["a", "b"]
unit = "stream"

[[router_group]]
name = "routers"
prefixes = ["192.0.2.0/24"]
collectors = "core"

[[copy]]
name = "other"
address = "10.0.9.9:9996"
router_groups = ["routers"]
one_in = 1
"#;

fn compile(text: &str) -> Result<Compiled, ConfigError> {
    Config::parse(text)?.compile(&mut DestinationIds::default())
}

fn message(text: &str) -> String {
    match compile(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_right_is_accepted() {
    let compiled = compile(GOOD).expect("good");
    assert_eq!(compiled.destinations.len(), 3);
    assert_eq!(compiled.plan.groups[0].unit, AssignmentUnit::Stream);
}

/// The example that comes with the program, with every key that it shows as a comment switched on.
#[test]
fn the_example_is_right_with_and_without_its_comments() {
    let text = include_str!("../../contrib/balancer.example.toml");
    let example = Config::parse(text).expect("TOML");
    let compiled = example
        .compile(&mut DestinationIds::default())
        .expect("good");
    assert_eq!(compiled.destinations.len(), 6);
    // A line of a comment that is a key and a value.
    let switched_on: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_setting(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = Config::parse(&switched_on).expect("TOML");
    all.compile(&mut DestinationIds::default()).expect("good");
    // The values shown are the defaults, but for these.
    assert!(all.streams.state_file.is_some());
    let mut streams = all.streams.clone();
    streams.state_file = None;
    assert_eq!((streams, all.health), (example.streams, example.health));
    assert_eq!((all.limits, all.listen), (example.limits, example.listen));
}

fn is_setting(line: &str) -> bool {
    let Some((key, _)) = line.split_once(" = ") else {
        return false;
    };
    key.chars()
        .all(|letter| letter.is_ascii_lowercase() || letter == '_')
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (wrong, words) in [
        ("[listen", "line 1, column 8"),
        ("[listen]\nadresses = []\n", "unknown field `adresses`"),
        ("[lisen]\n", "unknown field `lisen`"),
        (
            "[listen]\naddresses = [\"here\"]\n",
            "invalid socket address",
        ),
        ("[[collector]]\nname = \"a\"\n", "missing field `address`"),
        (
            "[[collector_group]]\nname = \"a\"\ncollectors = []\npolicy = \"best\"\n",
            "unknown variant `best`",
        ),
    ] {
        let error = compile(wrong).expect_err("wrong");
        assert!(matches!(error, ConfigError::Syntax(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("line "), "{text}");
    }
}

/// What is replaced, by what, and the whole message.
#[test]
fn every_mistake_has_its_message() {
    let cases = [
        (
            "addresses = [\"127.0.0.1:2055\"]",
            "addresses = []",
            "no address to listen on: give listen.addresses, such as [\"0.0.0.0:2055\"]",
        ),
        (
            "name = \"b\"",
            "name = \"a\"",
            "two entries of collector are called \"a\": names must differ",
        ),
        (
            "name = \"core\"",
            "name = \"core\"\ncollectors = [\"a\"]\n[[collector_group]]\nname = \"core\"",
            "two entries of collector_group are called \"core\": names must differ",
        ),
        (
            "name = \"routers\"",
            "name = \"routers\"\nprefixes = [\"10.0.0.0/8\"]\n[[router_group]]\nname = \"routers\"",
            "two entries of router_group are called \"routers\": names must differ",
        ),
        (
            "name = \"other\"",
            "name = \"other\"\naddress = \"10.0.0.3:1\"\n[[copy]]\nname = \"other\"",
            "two entries of copy are called \"other\": names must differ",
        ),
        (
            "collectors = [\"a\", \"b\"]",
            "collectors = [\"a\", \"a\"]",
            "two entries of a group's collectors are called \"a\": names must differ",
        ),
        (
            "collectors = [\"a\", \"b\"]",
            "collectors = [\"a\", \"c\"]",
            "collector_group \"core\" names the collector \"c\", which does not exist; there are: a, b",
        ),
        (
            "collectors = \"core\"",
            "collectors = \"edge\"",
            "router_group \"routers\" names the collector_group \"edge\", which does not exist; there are: core",
        ),
        (
            "router_groups = [\"routers\"]",
            "router_groups = [\"others\"]",
            "copy \"other\" names the router_group \"others\", which does not exist; there are: routers",
        ),
        (
            "collectors = [\"a\", \"b\"]",
            "collectors = []",
            "collector_group \"core\": has no collectors: add some, or remove the group",
        ),
        (
            "prefixes = [\"192.0.2.0/24\"]",
            "prefixes = []",
            "router_group \"routers\": give prefixes, such as [\"10.0.0.0/8\"]",
        ),
        (
            "unit = \"stream\"",
            "unit = \"record\"\npolicy = \"round_robin\"",
            "collector_group \"core\": unit \"record\" keeps each flow at one collector by its hash: set policy = \"rendezvous\", or another unit",
        ),
        (
            "unit = \"stream\"",
            "fixed = [{ prefix = \"192.0.2.0/25\", collectors = [\"a\"] }]",
            "collector_group \"core\": has prefixes under fixed: set policy = \"fixed\"",
        ),
        (
            "unit = \"stream\"",
            "policy = \"fixed\"\nfixed = [{ prefix = \"192.0.2.0/25\", collectors = [\"c\"] }]",
            "collector_group \"core\" names the collector \"c\", which does not exist; there are: a, b",
        ),
        (
            "collectors = [\"a\", \"b\"]\nunit = \"stream\"",
            "collectors = [\"a\"]\npolicy = \"fixed\"\nfixed = [{ prefix = \"192.0.2.0/25\", collectors = [\"b\"] }]",
            "collector_group \"core\": fixed 192.0.2.0/25 names \"b\", which is not in the group: add it to collectors",
        ),
        (
            "unit = \"stream\"",
            "load_bound = -0.5",
            "collector_group \"core\": load_bound must be above 0, or false",
        ),
        (
            "interval_ms = 250",
            "interval_ms = 9",
            "health: interval_ms must be at least 10, timeout_ms, fall and rise at least 1",
        ),
        (
            "interval_ms = 250",
            "fall = 0",
            "health: interval_ms must be at least 10, timeout_ms, fall and rise at least 1",
        ),
        (
            "message_bytes = 1400",
            "message_bytes = 511",
            "streams: message_bytes must be 512 to 65000",
        ),
        (
            "message_bytes = 1400",
            "state_save_seconds = 0",
            "streams: state_save_seconds must be at least 1",
        ),
        (
            "exporters = 100",
            "exporters = 0",
            "limits: exporters and streams must be at least 1",
        ),
        (
            "exporters = 100",
            "queue_bytes = 1048575",
            "limits: queue_bytes must be at least 1048576",
        ),
        (
            "weight = 1.0",
            "weight = 0.0",
            "collector \"a\": weight must be above 0",
        ),
        (
            "weight = 1.0",
            "weight = nan",
            "collector \"a\": weight must be above 0",
        ),
        (
            "weight = 1.0",
            "records_per_second = inf",
            "collector \"a\": records_per_second must be above 0",
        ),
        (
            "http://10.0.0.2:80/health",
            "https://10.0.0.2:80/health",
            "collector \"b\": the probe's url must be http://ADDRESS:PORT/PATH",
        ),
        (
            "http://10.0.0.2:80/health",
            "http://example.com:80/health",
            "collector \"b\": the probe's url must be http://ADDRESS:PORT/PATH",
        ),
        (
            "one_in = 1",
            "one_in = 0",
            "copy \"other\": one_in must be at least 1",
        ),
    ];
    for (good, bad, expected) in cases {
        let text = GOOD.replacen(good, bad, 1);
        assert_ne!(text, GOOD, "{good} is not in the configuration");
        assert_eq!(message(&text), expected);
    }
}

#[test]
fn nothing_to_do_is_said() {
    let text = "[listen]\naddresses = [\"127.0.0.1:1\"]\n[[router_group]]\nname = \"r\"\nprefixes = [\"10.0.0.0/8\"]\n";
    assert_eq!(
        message(text),
        "nothing to do: give a router_group with collectors, or a copy"
    );
    // A copy of everything is something.
    let copy = format!("{text}[[copy]]\nname = \"c\"\naddress = \"10.0.0.1:1\"\n");
    assert!(compile(&copy).is_ok());
}

#[test]
fn ids_are_never_used_again() {
    let mut config = Config::parse(GOOD).expect("TOML");
    config.copies.clear();
    let mut ids = DestinationIds::default();
    for port in 1..=32_767 {
        // Another address is another collector.
        config.collectors[0].address.set_port(port);
        let compiled = config.compile(&mut ids).expect("room for it");
        assert_eq!(compiled.destinations.len(), 2);
    }
    let mut error = None;
    for port in 1..=65_535 {
        config.collectors[1].address.set_port(port);
        if let Err(reason) = config.compile(&mut ids) {
            error = Some(reason.to_string());
            break;
        }
    }
    assert_eq!(
        error.as_deref(),
        Some("collector \"b\": 65,535 collectors were added since the start: restart the balancer")
    );
}

#[test]
fn collectors_come_and_go() {
    let mut config = Config::parse(GOOD).expect("TOML");
    let collector = |name: &str| CollectorConfig {
        name: name.to_owned(),
        address: "10.0.0.3:2055".parse().expect("an address"),
        weight: 1.0,
        records_per_second: None,
        source: SourceAddress::Balancer,
        probe: ProbeConfig::Icmp,
    };
    assert_eq!(
        config.add_collector(collector("a"), &[]),
        Err(ConfigError::Duplicate {
            kind: "collector",
            name: "a".to_owned()
        })
    );
    let before = config.clone();
    let error = config.add_collector(collector("c"), &["core".to_owned(), "edge".to_owned()]);
    assert_eq!(
        error.expect_err("no such group").to_string(),
        "the request names the collector_group \"edge\", which does not exist; there are: core"
    );
    assert_eq!(config, before, "nothing of it was done");
    config
        .add_collector(collector("c"), &["core".to_owned()])
        .expect("added");
    assert_eq!(config.collector_groups[0].collectors, ["a", "b", "c"]);
    assert!(config.remove_collector("c"));
    assert_eq!(config, before);
    assert!(!config.remove_collector("c"));
}

#[test]
fn policies_are_what_their_names_say() {
    for (name, is_right) in [
        (
            PolicyName::RoundRobin,
            (|policy| matches!(policy, Policy::RoundRobin)) as fn(&Policy) -> bool,
        ),
        (PolicyName::LeastLoaded, |policy| {
            matches!(policy, Policy::LeastLoaded)
        }),
        (
            PolicyName::Rendezvous,
            |policy| matches!(policy, Policy::Rendezvous { load_bound: Some(bound) } if *bound == 0.25),
        ),
        (
            PolicyName::EstimatedLoad,
            |policy| matches!(policy, Policy::EstimatedLoad { horizon } if horizon.as_millis() == 1000),
        ),
        (
            PolicyName::Fixed,
            |policy| matches!(policy, Policy::Fixed { routes } if routes.is_empty()),
        ),
    ] {
        let mut config = Config::parse(GOOD).expect("TOML");
        config.collector_groups[0].policy = name;
        let compiled = config
            .compile(&mut DestinationIds::default())
            .expect("good");
        let policy = &compiled.plan.groups[0].balancer.policy;
        assert!(is_right(policy), "{name:?}: {policy:?}");
    }
}
