//! Configurations and lists of stored files of any text.

#![no_main]

use flowradar_server::Config;
use flowradar_server::store::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(config) = Config::parse(text)
        && config.check().is_ok()
    {
        // Nobody in the network may report without proof.
        let tls = config.ingest.tls.as_ref();
        let proof = tls.is_some_and(|tls| tls.client_ca.is_some());
        assert!(!config.ingest.open || proof || config.ingest.listen.ip().is_loopback());
    }
    if let Ok(manifest) = Manifest::parse(bytes) {
        for file in manifest.files() {
            assert!(!file.path.starts_with('/') && !file.path.split('/').any(|part| part == ".."));
        }
    }
});
