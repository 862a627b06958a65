//! The bytes on disk are the protocol: what this crate writes and reads must be exactly them.
//!
//! The files were written from the specification, not by this crate. A frame that is already out there
//! never changes its bytes within a version, so there is no switch that rewrites them: whoever adds a
//! variant adds a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use culvert_wire::ticket::{InvitationClaims, TicketClaims};
use culvert_wire::{Frame, Header, Kind, Notice};
use data_encoding::HEXLOWER;

use crate::samples::samples;

fn golden() -> BTreeMap<String, Bytes> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(name, parse(&fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

/// Hexadecimal digits with blanks between them; `#` starts a comment.
fn parse(text: &str) -> Bytes {
    let digits: String = text
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(bytes, _)| bytes))
        .flat_map(str::split_whitespace)
        .collect();
    HEXLOWER.decode(digits.as_bytes()).unwrap().into()
}

#[test]
fn every_frame_is_written_and_read_as_on_disk() {
    let mut files = golden();
    for (name, frame) in samples() {
        let written = frame.encode().unwrap();
        let Some(bytes) = files.remove(&name) else {
            panic!("tests/golden/{name}.hex is missing; this build writes {}", HEXLOWER.encode(&written));
        };
        assert_eq!(written, bytes, "{name}: written");
        assert_eq!(Frame::decode(bytes).unwrap(), frame, "{name}: read");
    }
    assert!(files.is_empty(), "files without a sample: {:?}", files.keys());
}

#[test]
fn every_kind_has_a_sample() {
    let sampled: BTreeSet<u8> = samples().iter().map(|(_, frame)| frame.kind()).collect();
    for kind in Kind::ALL {
        assert!(sampled.contains(&kind.number()), "{} has no sample", kind.name());
    }
}

/// `Notice` and `Admission` carry data and cannot list themselves, so the decoder is asked for each number.
#[test]
fn every_notice_and_admission_that_decodes_has_a_sample() {
    let mut sampled = (BTreeSet::new(), BTreeSet::new());
    for (_, frame) in samples() {
        match frame {
            Frame::Notice(Notice::Other(_)) => {}
            Frame::Notice(notice) => _ = sampled.0.insert(notice.number()),
            Frame::Hello(hello) => _ = sampled.1.insert(hello.admission.number()),
            _ => {}
        }
    }
    let decodes = |kind, before, number| {
        let mut bytes = Header::plain(kind).to_bytes().to_vec();
        bytes.resize(bytes.len() + before, 0);
        bytes.push(number);
        bytes.resize(bytes.len() + 200, 0);
        Frame::decode(bytes.into()).is_ok_and(|frame| !matches!(frame, Frame::Notice(Notice::Other(_))))
    };
    // In front of the admission: peer, nonce, version, generation, replaces and the length of no host.
    let before = 32 + 32 + 2 + 8 + 8 + 2;
    let known = (
        (0..=u8::MAX).filter(|number| decodes(Kind::Notice, 0, *number)).collect(),
        (0..=u8::MAX).filter(|number| decodes(Kind::Hello, before, *number)).collect(),
    );
    assert_eq!(sampled, known);
}

#[test]
fn claims_are_written_and_read_as_on_disk() {
    let ticket = include_str!("../golden/ticket.json");
    let claims: TicketClaims = serde_json::from_str(ticket).unwrap();
    assert_eq!(serde_json::to_string_pretty(&claims).unwrap(), ticket.trim_end());

    let invitation = include_str!("../golden/invitation.json");
    let claims: InvitationClaims = serde_json::from_str(invitation).unwrap();
    assert_eq!(serde_json::to_string_pretty(&claims).unwrap(), invitation.trim_end());
}
