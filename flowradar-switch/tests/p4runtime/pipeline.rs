//! Pipeline configurations.

use flowradar_p4::PipelineConfig;
use flowradar_p4::client::{ClientErrorReason, PipelineAction, Update};
use flowradar_p4::entity::{Entity, Match, TableEntry};
use tonic::Code;

use crate::support::{TestSwitch, program, run};

fn code(error: &flowradar_p4::client::ClientError) -> Option<Code> {
    match &*error.reason {
        ClientErrorReason::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

fn entry(address: u64) -> Entity {
    let entry = TableEntry::new("l2_exact").matching("dst", Match::exact(address));
    Entity::Table(entry.call("forward", [("port", 1_u32)]))
}

#[test]
fn without_a_pipeline_nothing_can_be_read_or_written() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.session(1).await;
        assert_eq!(session.pipeline_cookie().await, Ok(None));
        let error = session.fetch_info().await.expect_err("there is none");
        assert_eq!(*error.reason, ClientErrorReason::NoPipeline);
        session.set_info(program().info().clone());
        let error = session.read_table(None).await.expect_err("there is none");
        assert_eq!(code(&error), Some(Code::FailedPrecondition));
        let error = session
            .write(&[Update::Insert(entry(1))])
            .await
            .expect_err("there is none");
        assert_eq!(code(&error), Some(Code::FailedPrecondition));
    });
}

#[test]
fn verifying_changes_nothing() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.session(1).await;
        let verify = PipelineAction::Verify;
        session
            .set_pipeline(verify, &program())
            .await
            .expect("a good program");
        assert_eq!(session.pipeline_cookie().await, Ok(None));

        let info = include_str!("entities.p4info.txtpb");
        let broken = PipelineConfig::new(b"{}", info).expect("the P4Info is good");
        let error = session
            .set_pipeline(verify, &broken)
            .await
            .expect_err("no program");
        assert_eq!(code(&error), Some(Code::InvalidArgument));
        let renamed = info.replace("IngressImpl.routes", "IngressImpl.ways");
        let json = include_bytes!("entities.json");
        let foreign = PipelineConfig::new(json, &renamed).expect("the P4Info is good");
        let error = session
            .set_pipeline(verify, &foreign)
            .await
            .expect_err("no table of that name");
        assert_eq!(code(&error), Some(Code::InvalidArgument));
        assert!(error.to_string().contains("IngressImpl.ways"), "{error}");
    });
}

#[test]
fn what_is_saved_is_written_to_before_it_is_committed() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.primary().await;
        session
            .write(&[Update::Insert(entry(1))])
            .await
            .expect("a good entry");
        let save = PipelineAction::VerifyAndSave;
        session
            .set_pipeline(save, &program())
            .await
            .expect("a good program");
        session
            .write(&[Update::Insert(entry(2))])
            .await
            .expect("a good entry");
        session
            .write(&[Update::Insert(entry(3))])
            .await
            .expect("a good entry");
        let sent = switch.port(1);
        let mut frame = vec![0; 14];
        frame[5] = 1;
        switch.receive(2, &frame);
        assert_eq!(sent.try_iter().count(), 1, "the old entry still counts");
        let commit = PipelineAction::Commit;
        session
            .set_pipeline(commit, &program())
            .await
            .expect("something was saved");
        assert_eq!(
            session
                .read_table(Some("l2_exact"))
                .await
                .expect("a table")
                .len(),
            2
        );
        switch.receive(2, &frame);
        assert_eq!(sent.try_iter().count(), 0, "the old entry is gone");
        let error = session
            .set_pipeline(commit, &program())
            .await
            .expect_err("nothing is saved");
        assert_eq!(code(&error), Some(Code::NotFound));
    });
}

#[test]
fn the_same_program_is_reconciled_and_keeps_its_entries() {
    run(async {
        let switch = TestSwitch::start().await;
        let mut session = switch.primary().await;
        session
            .write(&[Update::Insert(entry(1))])
            .await
            .expect("a good entry");
        let reconcile = PipelineAction::ReconcileAndCommit;
        session
            .set_pipeline(reconcile, &program())
            .await
            .expect("the same program");
        assert_eq!(
            session
                .read_table(None)
                .await
                .expect("tables")
                .iter()
                .filter(|e| !e.is_const)
                .count(),
            1
        );
        let commit = PipelineAction::VerifyAndCommit;
        session
            .set_pipeline(commit, &program())
            .await
            .expect("a good program");
        assert_eq!(
            session
                .read_table(None)
                .await
                .expect("tables")
                .iter()
                .filter(|e| !e.is_const)
                .count(),
            0
        );
    });
}

#[test]
fn a_client_without_files_asks_the_switch_for_its_program() {
    run(async {
        let switch = TestSwitch::start().await;
        let _primary = switch.primary().await;
        let mut session = switch.session(0).await;
        let info = session.fetch_info().await.expect("it runs a program");
        assert_eq!(info.message(), program().info().message());
        assert_eq!(
            session.pipeline_cookie().await,
            Ok(Some(program().cookie()))
        );
        assert_eq!(session.api_version().await, Ok("1.5.0".into()));
    });
}
