//! The shipped rights of mosquitto, tried by a client that does what it may not.

use anyhow::{Context, Result};
use std::time::Duration;
use tillwatch_tests::mosquitto::Mosquitto;
use tillwatch_tests::pki::{Authority, Identity};
use tokio::time::timeout;

use tillwatch_tests::client::{Client, PATIENCE};

fn topics(site: &str, leaves: &[&str]) -> Vec<String> {
    leaves.iter().map(|leaf| format!("tw1/a/{site}/{leaf}")).collect()
}

#[tokio::test]
async fn a_store_speaks_for_itself_alone_and_only_an_archive_acknowledges() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let port = mosquitto.port;
    // Calling itself by another's name gives a store no other rights than its certificate does.
    let store = Client::connect(port, "store-2", &authority.client("store-1")?).await?;
    let archive = Client::connect(port, "main", &authority.client("main")?).await?;
    for topic in topics("store-1", &["birth", "state", "sum", "evt", "rsp"]) {
        assert!(store.may_write(&topic).await?, "{topic}");
    }
    let forbidden = [
        topics("store-2", &["birth", "state", "sum", "evt", "rsp"]),
        topics("store-1", &["ack/main", "ack/other", "cmd", "cfg", "sum/more"]),
        vec!["other".to_owned(), "tw1/a/store-1".to_owned()],
    ];
    for topic in forbidden.concat() {
        assert!(!store.may_write(&topic).await?, "{topic}");
    }
    assert!(archive.may_write("tw1/a/store-1/ack/main").await?);
    for topic in topics("store-1", &["ack/other", "sum", "state", "cmd"]) {
        assert!(!archive.may_write(&topic).await?, "{topic}");
    }
    Ok(())
}

#[tokio::test]
async fn a_store_hears_what_is_meant_for_it_alone() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let port = mosquitto.port;
    let mut store = Client::connect(port, "store-1", &authority.client("store-1")?).await?;
    let mut archive = Client::connect(port, "main", &authority.client("main")?).await?;
    let other = Client::connect(port, "store-2", &authority.client("store-2")?).await?;
    store.subscribe("#").await?;
    archive.subscribe("tw1/+/+/sum").await?;
    assert!(other.may_write("tw1/a/store-2/sum").await?);
    assert!(archive.may_write("tw1/a/store-2/ack/main").await?);
    assert!(archive.may_write("tw1/a/store-1/ack/main").await?);
    // The broker keeps the order, so what came first would be here first.
    let heard = timeout(PATIENCE, store.arrived.recv())
        .await?
        .context("the store hears nothing")?;
    assert_eq!(heard.0, "tw1/a/store-1/ack/main");
    let heard = timeout(PATIENCE, archive.arrived.recv())
        .await?
        .context("the archive hears nothing")?;
    assert_eq!(heard.0, "tw1/a/store-2/sum");
    Ok(())
}

/// It trusts our broker, which need not trust it.
async fn is_let_in(mosquitto: &Mosquitto, authority: &Authority, identity: Identity) -> Result<bool> {
    let identity = Identity {
        ca: authority.client("trusts")?.ca,
        ..identity
    };
    let connecting = Client::connect(mosquitto.port, "store-1", &identity);
    // Refused, its connection ends at once; to be let in may take as long as it takes.
    Ok(connecting.await.is_ok())
}

#[tokio::test]
async fn an_expired_a_foreign_and_a_revoked_certificate_are_refused() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let foreign = Authority::new(&place.path().join("foreign"))?.client("store-1")?;
    assert!(!is_let_in(&mosquitto, &authority, foreign).await?, "foreign");
    let expired = authority.expired_client("store-1")?;
    assert!(!is_let_in(&mosquitto, &authority, expired).await?, "expired");
    let (kept, stolen) = (authority.client("store-1")?, authority.client("store-2")?);
    assert!(
        is_let_in(&mosquitto, &authority, stolen.clone()).await?,
        "not revoked yet"
    );
    authority.revoke(&["store-2"])?;
    mosquitto.reload()?;
    // A signal is taken when the broker comes to it.
    timeout(PATIENCE, async {
        while is_let_in(&mosquitto, &authority, stolen.clone()).await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    })
    .await
    .context("a revoked certificate is let in")??;
    assert!(is_let_in(&mosquitto, &authority, kept).await?, "another one's");
    Ok(())
}

#[tokio::test]
async fn a_store_that_went_wild_is_shut_out_while_its_connection_stands() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let wild = Client::connect(mosquitto.port, "store-1", &authority.client("store-1")?).await?;
    let other = Client::connect(mosquitto.port, "store-2", &authority.client("store-2")?).await?;
    assert!(wild.may_write("tw1/a/store-1/sum").await?);
    mosquitto.shut_out("store-1")?;
    timeout(PATIENCE, async {
        while wild.may_write("tw1/a/store-1/sum").await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    })
    .await
    .context("it goes on")??;
    assert!(other.may_write("tw1/a/store-2/sum").await?);
    Ok(())
}
