//! The compiled P4 programs in the repository are those of the sources.

use std::fs;
use std::path::Path;

use xtask::p4::{self, P4Error};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is in a folder of the repository")
}

#[test]
fn compiled_programs_are_up_to_date() {
    match p4::check(repository()) {
        Ok(programs) => assert!(!programs.is_empty(), "no program was found"),
        Err(error) => panic!("{error}"),
    }
}

/// The check must be able to fail: a changed source, a changed include, a changed output.
#[test]
fn changes_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let copies = [
        "p4src/generated",
        "p4src",
        "p4src/v1model",
        "p4src/v1model/compiled",
    ];
    for copy in copies {
        fs::create_dir_all(folder.path().join(copy)).expect("a folder");
        for entry in fs::read_dir(repository().join(copy)).expect("the folder") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                let to = folder.path().join(copy).join(entry.file_name());
                fs::copy(entry.path(), to).expect("a copy");
            }
        }
    }
    p4::check(folder.path()).expect("the copy is up to date");

    for changed in [
        "p4src/v1model/switch.p4",
        "p4src/flowradar_table.p4",
        "p4src/generated/flowradar_config.p4",
        "p4src/v1model/compiled/switch.json",
    ] {
        let path = folder.path().join(changed);
        let before = fs::read(&path).expect("the file");
        fs::write(&path, [&before[..], b"\n"].concat()).expect("a write");
        let error = p4::check(folder.path()).expect_err(changed);
        assert!(matches!(&error, P4Error::Stale(_)), "{changed}: {error}");
        assert!(error.to_string().contains(changed), "{changed}: {error}");
        fs::write(&path, before).expect("a write");
    }
    p4::check(folder.path()).expect("all is as it was");
}
