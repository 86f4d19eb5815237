//! A collector as a service: addresses, signals, and switches that report to it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Folder, command, flowradar};

/// A command that goes on until it is told to stop.
struct Service {
    child: Child,
    /// What it said on standard error so far.
    said: Arc<Mutex<String>>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let listener = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut said = listener.lock().expect("nobody panics with it");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            said,
            stdout,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Sends a signal, such as `-HUP`.
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    fn stop(mut self) {
        self.signal("-TERM");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.said());
        assert!(!self.said().contains("panicked"), "{}", self.said());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Of a test that fails; otherwise it has ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A collector; its addresses for agents, and for its API.
fn collector(folder: &Folder, text: &str) -> (Service, String, String) {
    let text = format!(
        "data_folder = {:?}\ningest.listen = \"127.0.0.1:0\"\napi.listen = \"127.0.0.1:0\"\n{text}",
        folder.path("data")
    );
    let config = folder.write("collector.toml", text.as_bytes());
    let mut service = Service::start(&["collect", "--config", &config, "--json"]);
    let mut line = String::new();
    service.stdout.read_line(&mut line).expect("its addresses");
    let listening: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
    let address = |name: &str| {
        let address = listening[name].as_str().expect("an address");
        format!("http://{address}")
    };
    let (ingest, api) = (address("ingest"), address("api"));
    (service, ingest, api)
}

fn eventually(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    while let Err(error) = holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get(url: &str) -> serde_json::Value {
    let mut answer = ureq::get(url).call().expect("an answer");
    let text = answer.body_mut().read_to_string().expect("text");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_configuration_is_read_again_on_sighup() {
    let folder = Folder::new();
    let token = folder.write("token", b"first\n");
    let settings = |more: &str| format!("api.token_file = {token:?}\n{more}");
    let (service, _, api) = collector(&folder, &settings(""));
    let remark = |token: &str| {
        let posted = ureq::post(format!("{api}/api/v1/admin/notice"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .send(r#"{"message": "maintenance begins"}"#);
        match posted {
            Ok(answer) => answer.status().as_u16(),
            Err(ureq::Error::StatusCode(status)) => status,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((remark("first"), remark("second")), (204, 401));

    folder.write("token", b"second\n");
    service.signal("-HUP");
    eventually("the new token is known", || {
        (remark("second") == 204)
            .then_some(())
            .ok_or_else(|| service.said())
    });
    assert_eq!(remark("first"), 401);

    // One that cannot be used changes nothing.
    let bad = format!("{}\n[epochs]\ndead_line_ms = 1\n", settings(""));
    folder.write("collector.toml", bad.as_bytes());
    service.signal("-HUP");
    eventually("it is told", || {
        let said = service.said();
        said.contains("the configuration is as before: ")
            .then_some(())
            .ok_or(said)
    });
    assert!(
        service.said().contains("dead_line_ms"),
        "{}",
        service.said()
    );
    assert_eq!(remark("second"), 204);

    // What needs a restart is named.
    let other = format!(
        "data_folder = {:?}\n{}",
        folder.path("data"),
        settings("analysis.enabled = false")
    );
    folder.write("collector.toml", other.as_bytes());
    service.signal("-HUP");
    eventually("it is told", || {
        let said = service.said();
        let told = said.lines().find(|line| line.contains("need a restart"));
        let told = told.ok_or_else(|| said.clone())?;
        ["analysis", "api.listen", "ingest.listen"]
            .iter()
            .all(|name| told.contains(name))
            .then_some(())
            .ok_or_else(|| told.to_owned())
    });
    service.stop();
}

#[test]
fn p4_switches_report_to_a_collector() {
    let folder = Folder::new();
    let switch = Service::start(&["switch", "--reference", "--grpc", "127.0.0.1:0"]);
    let mut address = String::new();
    eventually("the switch listens", || {
        let said = switch.said();
        let at = said
            .lines()
            .find_map(|line| line.split_once("P4Runtime at "));
        address = at.ok_or_else(|| said.clone())?.1.to_owned();
        Ok(())
    });
    let settings = "[[ingest.switches]]\nname = \"s1\"\ntoken = \"hunter2\"\n";
    let (service, ingest, api) = collector(&folder, settings);
    let token = folder.write("token", b"hunter2\n");
    let spool = folder.path("spool");
    let of_switch = format!("s1={address}");
    let agent = |token: &str| {
        flowradar([
            "p4",
            "agent",
            "--switch",
            &of_switch,
            "--epoch",
            "300ms",
            "--epochs",
            "2",
            "--collector",
            &ingest,
            "--token-file",
            token,
            "--spool",
            &spool,
        ])
    };
    let wrong = folder.write("wrong", b"swordfish\n");
    let refused = agent(&wrong).expect(1);
    assert!(refused.stderr.contains("s1: "), "{}", refused.stderr);
    agent(&token).expect(0);
    eventually("epochs are decoded", || {
        let epochs = get(&format!("{api}/api/v1/epochs"));
        let of_s1 = |epoch: &&serde_json::Value| epoch["switches"][0]["switch"] == "s1";
        let count = epochs
            .as_array()
            .expect("a list")
            .iter()
            .filter(of_s1)
            .count();
        (count >= 2).then_some(()).ok_or_else(|| epochs.to_string())
    });
    let switches = get(&format!("{api}/api/v1/switches"));
    assert_eq!(switches[0]["switch"], "s1", "{switches}");
    // Nothing is left to be shipped.
    assert!(
        !folder
            .names("spool/s1")
            .iter()
            .any(|name| name.ends_with(".flowset"))
    );
    service.stop();
    switch.signal("-INT");
}
