//! The claims of tickets and invitations: which exist, and which a token cannot do without.

use std::collections::BTreeSet;

use culvert_wire::ticket::{
    AUDIENCE, INVITATION_TYPE, InvitationClaims, TICKET_TYPE, TicketClaims, TicketLimits,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::document::table;

/// Holds the table against a token that has every claim: the same names, and `Required` where it does
/// not read without.
fn check<T: DeserializeOwned>(heading: &str, complete: &str) {
    let complete: Value = serde_json::from_str(complete).unwrap();
    let claims = complete.as_object().unwrap();
    let documented = table(&[heading, "Required"]).columns([heading, "Required"]);
    let names: BTreeSet<&str> = documented.iter().map(|[name, _]| name.as_str()).collect();
    assert_eq!(names, claims.keys().map(String::as_str).collect());
    for [name, required] in &documented {
        let mut without = claims.clone();
        without.remove(name);
        let reads = serde_json::from_value::<T>(Value::Object(without)).is_ok();
        assert_eq!(if reads { "no" } else { "yes" }, required, "{name}");
    }
}

#[test]
fn ticket_claims_are_those_of_the_code() {
    check::<TicketClaims>("Ticket claim", include_str!("../golden/ticket.json"));
}

#[test]
fn invitation_claims_are_those_of_the_code() {
    check::<InvitationClaims>("Invitation claim", include_str!("../golden/invitation.json"));
}

#[test]
fn limit_claims_are_those_of_the_code() {
    let ticket: TicketClaims = serde_json::from_str(include_str!("../golden/ticket.json")).unwrap();
    // Taken apart without `..`, so that a limit that is added must be added to the golden ticket.
    let TicketLimits { frames_per_second, bytes_per_second, topics, connections, highest_class } =
        ticket.limits.clone();
    assert!(frames_per_second.is_some() && bytes_per_second.is_some() && topics.is_some());
    assert!(connections.is_some() && highest_class.is_some());
    let limits = serde_json::to_value(&ticket.limits).unwrap();
    let documented = table(&["Limit claim"]).columns(["Limit claim"]);
    let names: BTreeSet<&str> = documented.iter().map(|[name]| name.as_str()).collect();
    assert_eq!(names, limits.as_object().unwrap().keys().map(String::as_str).collect());
}

#[test]
fn types_and_audience_are_those_of_the_code() {
    let text = include_str!("../../../docs/protocol.md").replace('\n', " ");
    assert!(text.contains(&format!("`typ` = `{TICKET_TYPE}`")));
    assert!(text.contains(&format!("`typ` = `{INVITATION_TYPE}`")));
    for heading in ["Ticket claim", "Invitation claim"] {
        let claims = table(&[heading]).columns([heading, "Meaning"]);
        assert!(claims.contains(&["aud".to_owned(), AUDIENCE.to_owned()]), "{heading}");
    }
}
