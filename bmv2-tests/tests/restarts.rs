//! Switches and controllers that come and go, on every target.

use bmv2_tests::switch::TestSwitch;
use bmv2_tests::targets::on_all_targets;
use flowradar_p4::Program;
use flowradar_p4::client::{PipelineOutcome, Standing};
use flowradar_testbed::frames::{Tuple4, udp4};
use flowradar_testbed::{Controller, Counts, WiredSwitch};

fn frames(flows: u16) -> Vec<Vec<u8>> {
    let frame = |flow: u16| {
        let tuple = Tuple4 {
            src: [10, 1, (flow >> 8) as u8, flow as u8].into(),
            dst: [10, 2, 0, 1].into(),
            src_port: flow,
            dst_port: 80,
        };
        udp4(tuple, b"payload")
    };
    (0..flows).map(frame).collect()
}

fn send(switch: &mut TestSwitch, frames: &[Vec<u8>], sent: &mut Counts) {
    for frame in frames {
        sent.add(frame);
        switch.send(1, frame);
    }
}

/// Ends epochs until all that was sent has been counted.
async fn drain_all(
    controller: &mut Controller,
    sent: &Counts,
) -> Result<Counts, Box<dyn std::error::Error>> {
    let mut counted = Counts::default();
    for _ in 0..20 {
        counted.add_bank(&controller.drain().await?)?;
        if counted.frames() >= sent.frames() {
            break;
        }
    }
    Ok(counted)
}

/// A switch that restarts has lost its epoch, its program and its tables; with the program back it counts
/// again from the beginning.
#[test]
fn a_switch_restarts_within_an_epoch() {
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 1).await?;
        let controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        send(&mut switch, &frames(200), &mut Counts::default());
        switch.restart().await?;
        drop(controller);
        let mut controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        let mut sent = Counts::default();
        send(&mut switch, &frames(300), &mut sent);
        assert_eq!(drain_all(&mut controller, &sent).await?, sent);
        Ok(())
    });
}

/// A controller that goes away leaves everything to the next one, which finds the program running.
#[test]
fn a_controller_restarts_within_an_epoch() {
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 1).await?;
        let mut sent = Counts::default();
        let controller = Controller::deploy(switch.address(), "s1", &[]).await?;
        send(&mut switch, &frames(200), &mut sent);
        drop(controller);
        send(&mut switch, &frames(300), &mut sent);
        let mut controller = Controller::connect(switch.address(), "s1", 2).await?;
        let program = Program::reference();
        let kept = controller.session.ensure_pipeline(&program.pipeline).await;
        assert_eq!(kept.expect("an answer"), PipelineOutcome::Kept);
        assert_eq!(drain_all(&mut controller, &sent).await?, sent);
        Ok(())
    });
}

/// A second controller with a higher election id becomes primary; the first hears of it, and can do
/// nothing any more.
#[test]
fn a_second_controller_takes_over() {
    on_all_targets(async |target| {
        let mut switch = TestSwitch::start(target, 1).await?;
        let mut sent = Counts::default();
        let mut first = Controller::deploy(switch.address(), "s1", &[]).await?;
        send(&mut switch, &frames(100), &mut sent);
        let mut second = Controller::connect(switch.address(), "s1", 7).await?;
        assert_eq!(second.session.standing(), Standing::Primary);
        let standing = first.session.standing_changed().await;
        assert!(matches!(standing, Standing::Backup { .. }), "{standing:?}");
        let refused = first
            .session
            .ensure_pipeline(&Program::reference().pipeline)
            .await;
        assert!(
            matches!(refused, Err(_) | Ok(PipelineOutcome::Kept)),
            "{refused:?}"
        );
        send(&mut switch, &frames(150), &mut sent);
        assert_eq!(drain_all(&mut second, &sent).await?, sent);
        Ok(())
    });
}
