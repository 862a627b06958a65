//! Numbers and names: kinds, classes, verdicts, refusals, flags, limits, close codes.

use culvert_wire::frame::FLAG_BROADCAST;
use culvert_wire::{
    Class, Close, DecodeError, Header, JoinRefusal, Kind, PATH, SUBPROTOCOL, Verdict, limits,
};

use crate::document::table;

fn numbered(all: impl Iterator<Item = (u8, &'static str)>) -> Vec<[String; 2]> {
    all.map(|(number, name)| [number.to_string(), name.to_owned()]).collect()
}

#[test]
fn kinds_are_those_of_the_code() {
    let code: Vec<_> =
        Kind::ALL.iter().map(|kind| [format!("{:#04x}", kind.number()), kind.name().to_owned()]).collect();
    assert_eq!(table(&["Kind"]).columns(["Kind", "Frame"]), code);
}

#[test]
fn classes_verdicts_and_refusals_are_those_of_the_code() {
    let classes = numbered(Class::ALL.iter().map(|class| (class.number(), class.name())));
    assert_eq!(table(&["Class"]).columns(["Class", "Name"]), classes);
    let verdicts = numbered(Verdict::ALL.iter().map(|verdict| (verdict.number(), verdict.name())));
    assert_eq!(table(&["Verdict"]).columns(["Verdict", "Name"]), verdicts);
    let refusals = numbered(JoinRefusal::ALL.iter().map(|refusal| (refusal.number(), refusal.name())));
    assert_eq!(table(&["Refusal"]).columns(["Refusal", "Name"]), refusals);
}

#[test]
fn close_codes_are_those_of_the_code() {
    let code: Vec<_> = Close::ALL
        .iter()
        .map(|close| {
            let may_reconnect = if close.may_reconnect() { "yes" } else { "no" };
            [close.code().to_string(), close.name().to_owned(), may_reconnect.to_owned()]
        })
        .collect();
    assert_eq!(table(&["Code"]).columns(["Code", "Name", "May reconnect"]), code);
}

#[test]
fn codes_of_the_websocket_standard_that_are_terminal_are_those_of_the_code() {
    let text = include_str!("../../../docs/protocol.md").replace('\n', " ");
    let sentence = text.split_once("every code of RFC 6455 but ").unwrap().1.split_once(". ").unwrap().0;
    let listed: Vec<u16> = sentence.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
    let terminal: Vec<u16> = (1000..4000).filter(|code| !Close::code_may_reconnect(*code)).collect();
    assert_eq!(listed, terminal);
}

#[test]
fn limits_are_those_of_the_code() {
    let code = [
        ("header", limits::HEADER_LEN),
        ("payload", limits::MAX_PAYLOAD),
        ("frame", limits::MAX_FRAME),
        ("member entry", limits::MEMBER_LEN),
        ("members", limits::MAX_MEMBERS),
        ("ticket", limits::MAX_TICKET),
        ("invitation", limits::MAX_INVITATION),
        ("host", limits::MAX_HOST),
        ("versions", limits::MAX_VERSIONS),
        ("close reason", limits::MAX_CLOSE_REASON),
    ];
    let code: Vec<_> = code.iter().map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect();
    assert_eq!(table(&["Limit", "Value"]).columns(["Limit", "Value"]), code);
}

#[test]
fn flags_are_those_of_the_code() {
    let masks: Vec<u8> = table(&["Bits"])
        .columns(["Bits"])
        .iter()
        .map(|[bits]| u8::from_str_radix(bits.trim_start_matches("0b"), 2).unwrap())
        .collect();
    let [class, broadcast] = masks[..] else { panic!("{masks:?}") };
    assert_eq!(broadcast, FLAG_BROADCAST);
    // Class 3 is all bits of the mask, and nothing outside the mask makes a class.
    let mut bytes = Header::plain(Kind::Send).to_bytes();
    bytes[1] = class;
    assert_eq!(Header::split(&bytes), Err(DecodeError::Class));
    bytes[1] = !class;
    let (header, _) = Header::split(&bytes).unwrap();
    assert_eq!((header.class, header.broadcast), (Class::Control, true));
}

#[test]
fn path_and_subprotocol_are_those_of_the_code() {
    let carriage = include_str!("../../../docs/protocol.md");
    assert!(carriage.contains(&format!("path `{PATH}`, subprotocol `{SUBPROTOCOL}`")));
}
