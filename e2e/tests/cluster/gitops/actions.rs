//! What Argo CD's page has buttons for.

use std::time::Duration;

use super::{a_team, under_argo};
use crate::harness::database::READY;
use crate::harness::machine::for_a_while;
use crate::harness::wait::expect_eq;
use crate::harness::wait_for;

/// Argo CD compares four times in it.
const MOMENT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_restarted_paused_and_resumed() {
    under_argo("argo-actions", async |scenario, application| {
        let database = a_team(scenario, application, 2).await;
        let namespace = &scenario.namespace;
        let offered = async |restart: bool, pause: bool, resume: bool| {
            let actions = [("pause", pause), ("restart", restart), ("resume", resume)];
            let wanted = actions.map(|(name, may)| (name.to_owned(), may)).to_vec();
            wait_for("these actions are offered", READY, async || {
                expect_eq(application.actions("one", namespace).await?, wanted.clone())
            })
            .await;
        };
        let (synced, before) = (application.now().await.expect("there"), database.pod_uids().await);
        offered(true, true, false).await;
        application.act("one", namespace, "restart").await;
        wait_for("every pod is new", READY, async || {
            database.is_ready().await?;
            let after = database.pod_uids().await;
            expect_eq(after.iter().any(|uid| before.contains(uid)), false)?;
            expect_eq(after.len(), 2)
        })
        .await;
        application.becomes("Healthy").await;

        application.act("one", namespace, "pause").await;
        application.becomes("Suspended").await;
        offered(false, false, true).await;
        for_a_while(MOMENT).await;
        // Git says nothing of it: self-heal leaves it.
        application.becomes("Suspended").await;
        application.act("one", namespace, "resume").await;
        application.becomes("Healthy").await;
        offered(true, true, false).await;
        application.assert_left_alone_since(&synced);

        // It does: self-heal puts its word back.
        let running = database.with("spec.paused", false.into());
        let revision = application.commit(&[("database", Some(&running.manifest))]).await;
        application.healthy_at(&revision).await;
        let before = application.now().await.expect("there").finished;
        application.act("one", namespace, "pause").await;
        wait_for("Git's word holds", READY, async || {
            expect_eq(running.api().get("one").await?.spec.paused, false)?;
            expect_eq(application.now().await?.finished == before, false)
        })
        .await;
        application.healthy_at(&revision).await;
    })
    .await;
}
