//! Who may write, seen by clients.

use std::sync::Arc;

use flowradar_p4::client::{
    ClientErrorReason, PipelineAction, PipelineOutcome, Session, SessionOptions, Standing,
    SwitchTarget, TlsOptions, Update,
};
use flowradar_p4::entity::{Entity, Match, TableEntry};
use flowradar_switch::server::{ServerConfig, TlsIdentity};

use crate::support::{TestSwitch, options, program, run};

fn entry(address: u64) -> Entity {
    let entry = TableEntry::new("l2_exact").matching("dst", Match::exact(address));
    Entity::Table(entry.call("forward", [("port", 1_u32)]))
}

#[test]
fn a_second_controller_takes_over_and_the_first_is_told() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut first = switch.primary().await;
        let mut second = switch.session(0).await;
        let backup = Standing::Backup {
            has_primary: true,
            highest: Some(1),
        };
        assert_eq!(second.standing(), backup);
        second.set_info(Arc::clone(program().info()));
        let refused = second
            .write(&[Update::Insert(entry(1))])
            .await
            .expect_err("a backup");
        assert!(matches!(
            *refused.reason,
            ClientErrorReason::NotPrimary { .. }
        ));

        second.take_over().await.expect("nobody objects");
        assert_eq!(second.standing(), Standing::Primary);
        second
            .write(&[Update::Insert(entry(1))])
            .await
            .expect("it is primary");
        let told = loop {
            match first.standing_changed().await {
                Standing::Primary => {}
                standing => break standing,
            }
        };
        let backup = Standing::Backup {
            has_primary: true,
            highest: second.election_id(),
        };
        assert_eq!(told, backup);
        let refused = first
            .write(&[Update::Insert(entry(2))])
            .await
            .expect_err("not any more");
        assert!(matches!(
            *refused.reason,
            ClientErrorReason::NotPrimary { .. }
        ));
    });
}

#[test]
fn a_controller_that_comes_back_finds_its_entries() {
    run(async {
        let switch = TestSwitch::start().await;
        let first = switch.primary().await;
        first
            .write(&[Update::Insert(entry(7))])
            .await
            .expect("a good entry");
        drop(first);
        let mut again = switch.session(2).await;
        let outcome = again
            .ensure_pipeline(&program())
            .await
            .expect("it is primary");
        assert_eq!(outcome, PipelineOutcome::Kept);
        let entries = again.read_table(Some("l2_exact")).await.expect("a table");
        assert_eq!(entries.len(), 1);
        let summary = again.reconcile(&[entry(8)]).await.expect("good entries");
        assert_eq!((summary.inserted, summary.deleted), (1, 1));
        let summary = again.reconcile(&[entry(8)]).await.expect("good entries");
        assert_eq!((summary.kept, summary.inserted, summary.deleted), (1, 0, 0));
    });
}

#[test]
fn a_switch_that_restarts_is_noticed_and_can_be_set_up_again() {
    run(async {
        let switch = TestSwitch::start().await;
        let address = switch.server.address();
        let mut session = switch.primary().await;
        switch.server.stop().await;
        let ended = loop {
            if let Standing::Ended { reason } = session.standing_changed().await {
                break reason;
            }
        };
        assert!(!ended.is_empty());
        let error = session
            .write(&[Update::Insert(entry(7))])
            .await
            .expect_err("it is gone");
        assert!(error.reason.is_connection_lost(), "{error}");
        drop(session);

        let switch = TestSwitch::start_at(address, ServerConfig::default()).await;
        let mut session = switch.session(1).await;
        let outcome = session
            .ensure_pipeline(&program())
            .await
            .expect("it is primary");
        assert_eq!(outcome, PipelineOutcome::Committed);
        session.reconcile(&[entry(7)]).await.expect("good entries");
    });
}

#[test]
fn roles_have_primaries_of_their_own() {
    run(async {
        let switch = TestSwitch::start().await;
        let _default = switch.primary().await;
        let with_role = SessionOptions {
            role: Some("routes".into()),
            ..options()
        };
        let mut session = Session::connect(switch.target(), with_role)
            .await
            .expect("a new role");
        assert_eq!(session.standing(), Standing::Primary);
        session.set_info(Arc::clone(program().info()));
        session
            .write(&[Update::Insert(entry(1))])
            .await
            .expect("it is its role's primary");
    });
}

#[test]
fn one_election_id_is_for_one_controller() {
    run(async {
        let switch = TestSwitch::start().await;
        let _first = switch.session(5).await;
        let options = SessionOptions {
            election_id: 5,
            ..options()
        };
        let error = Session::connect(switch.target(), options)
            .await
            .expect_err("it is used");
        assert!(error.to_string().contains("InvalidArgument"), "{error}");
        assert!(error.to_string().starts_with("switch s1: "), "{error}");
    });
}

#[test]
fn another_device_is_not_there() {
    run(async {
        let switch = TestSwitch::start().await;
        let target = SwitchTarget {
            device_id: 9,
            ..(*switch.target()).clone()
        };
        let error = Session::connect(Arc::new(target), options())
            .await
            .expect_err("no device 9");
        assert!(error.to_string().contains("NotFound"), "{error}");
    });
}

#[test]
fn certificates_are_checked() {
    run(async {
        let certified = rcgen::generate_simple_self_signed(["switch.example".to_owned()])
            .expect("a certificate");
        let config = ServerConfig {
            tls: Some(TlsIdentity {
                certificates_pem: certified.cert.pem().into_bytes(),
                private_key_pem: certified.signing_key.serialize_pem().into_bytes(),
            }),
            ..ServerConfig::default()
        };
        let address = "127.0.0.1:0".parse().expect("an address");
        let switch = TestSwitch::start_at(address, config).await;
        let trusting = |server_name: &str| {
            Arc::new(SwitchTarget {
                tls: Some(TlsOptions {
                    ca_certificate_pem: certified.cert.pem().into_bytes(),
                    server_name: Some(server_name.into()),
                    client_identity_pem: None,
                }),
                ..(*switch.target()).clone()
            })
        };
        let mut session = Session::connect(trusting("switch.example"), options())
            .await
            .expect("its name and signature are right");
        let action = PipelineAction::VerifyAndCommit;
        session
            .set_pipeline(action, &program())
            .await
            .expect("a good program");
        Session::connect(trusting("other.example"), options())
            .await
            .expect_err("the name is another one");
        Session::connect(switch.target(), options())
            .await
            .expect_err("the switch talks TLS only");
    });
}
