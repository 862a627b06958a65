//! `culvert share`, `unshare` and `shares`: what you let others have.

mod audience;
pub(crate) mod registry;

pub(crate) use audience::Audience;

use anyhow::{Context, Result};
use comfy_table::Table;
use culvert_client::broker::{AccessPolicy, ShareLink, ShareToken, SyncError, Timestamp};
use data_encoding::HEXLOWER;
use serde_json::json;

use crate::broker_args::{ShareArgs, SharesArgs, UnshareArgs};
use crate::broker_session::failed;
use crate::report::Report;
use crate::ticket;
use registry::{Registry, Shared};

pub(crate) async fn share(args: ShareArgs) -> Result<()> {
    let login = args.broker.login().await?;
    let mut paths = Vec::new();
    for path in &args.paths {
        let whole = path.canonicalize().with_context(|| format!("cannot share {}", path.display()))?;
        paths.push(whole);
    }
    let title = match &args.title {
        Some(title) => title.clone(),
        None => paths
            .first()
            .and_then(|path| path.file_name())
            .map_or_else(|| "shared".to_owned(), |name| name.to_string_lossy().into_owned()),
    };
    let mut policy: AccessPolicy = args.to.clone().into();
    if let Some(expires) = args.expires {
        policy = policy.until(Timestamp::from_unix_seconds(ticket::now().saturating_add(expires.seconds())));
    }
    if let Some(most) = args.max_downloads {
        policy = policy.at_most(most);
    }
    let client = args.broker.connect().await?;
    let (token, result_id) = (ShareToken::generate(), random_id());
    let link = ShareLink(token.clone());
    // Known here before anybody can ask for it.
    let registry = Registry::of_this_user()?;
    registry.add(Shared {
        broker_url: login.broker_url.clone(),
        user_id: login.user_id.clone(),
        result_id: result_id.clone(),
        token: token.clone(),
        title: title.clone(),
        paths,
    })?;
    let published =
        client.publish(token.clone(), &result_id, &title, args.description.as_deref(), policy).await;
    client.disconnect().await;
    let report = Report::new(args.json);
    match published {
        Ok(()) => {}
        Err(SyncError::Queued(_)) => {
            report.note("The broker does not answer. The link is good as soon as `culvert serve` or another command has reached it.");
        }
        Err(error) => {
            registry.remove(&token)?;
            return Err(failed(error, &login.broker()?));
        }
    }
    let text = link.culvert();
    report.result(&text, &json!({ "event": "shared", "link": text, "result_id": result_id, "title": title }));
    report.note("Keep `culvert serve` running over the folder it is in, so that others can fetch it.");
    Ok(())
}

pub(crate) async fn unshare(args: UnshareArgs) -> Result<()> {
    let login = args.broker.login().await?;
    // No longer given out from here, whatever the broker says.
    Registry::of_this_user()?.remove(&args.link.0)?;
    let client = args.broker.connect().await?;
    let revoked = client.revoke_share(args.link.0.as_str()).await;
    client.disconnect().await;
    let broker = login.broker()?;
    revoked.map_err(|error| failed(error, &broker))?;
    Report::new(false).note("It is not shared any more.");
    Ok(())
}

pub(crate) async fn shares(args: SharesArgs) -> Result<()> {
    let login = args.broker.login().await?;
    let client = args.broker.connect().await?;
    let listed =
        if args.with_me { client.list_shared_with_me().await } else { client.list_my_shares().await };
    client.disconnect().await;
    let broker = login.broker()?;
    let listed = listed.map_err(|error| failed(error, &broker))?;
    let report = Report::new(args.json);
    if args.json {
        for share in &listed {
            report.result("", &json!({ "event": "share", "share": share }));
        }
        return Ok(());
    }
    if listed.is_empty() {
        report.note("There is none.");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(if args.with_me {
        vec!["OWNER", "TITLE", "FOR", "SINCE"]
    } else {
        vec!["LINK", "TITLE", "FOR", "SINCE"]
    });
    for share in listed {
        let token = share.token.and_then(|token| token.parse().ok()).map(|token| ShareLink(token).culvert());
        let first = if args.with_me { share.metadata.owner_user_id } else { token.unwrap_or(share.id) };
        let audience = audience::describe(&share.metadata.access_policy.audience);
        table.add_row([first, share.metadata.title, audience, share.published_at.to_string()]);
    }
    report.result(&table.to_string(), &serde_json::Value::Null);
    Ok(())
}

/// 128 random bits, as a name.
fn random_id() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}
