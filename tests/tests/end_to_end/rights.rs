//! The shipped rights of mosquitto, tried by a client that does what it may not.

use anyhow::{Context, Result};
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

#[tokio::test]
async fn without_a_certificate_of_the_authority_there_is_no_connection() -> Result<()> {
    let place = tempfile::tempdir()?;
    let authority = Authority::new(&place.path().join("pki"))?;
    let mosquitto = Mosquitto::start(&place.path().join("mosquitto"), &authority.server()?)?;
    let stranger = Authority::new(&place.path().join("stranger"))?.client("store-1")?;
    // It trusts our broker, but our broker does not trust it.
    let stranger = Identity {
        ca: authority.client("store-1")?.ca,
        ..stranger
    };
    let refused = Client::connect(mosquitto.port, "store-1", &stranger).await;
    assert!(refused.is_err());
    Ok(())
}
