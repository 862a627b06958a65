//! What goes into the next datagram.
//!
//! In this order: handshake messages; probes; packets of normal streams, which also carry what is
//! pending; what is pending alone, as control; bulk. A packet has one class, so it carries streams of
//! one class only, and acknowledgements never wait behind bulk.

use std::time::Duration;

use culvert_wire::Class;

use super::{Phase, Session};
use crate::Transmit;
use crate::crypto::TAG_LEN;
use crate::frame::{CloseCode, Frame, STREAM_OVERHEAD, Terms, put_stream_header};
use crate::packet::{DATA_HEADER, MAX_FRAMES};
use crate::recovery::Content;

/// Bytes around the frames of a packet.
const ENVELOPE: usize = DATA_HEADER + TAG_LEN;
/// With less than this free in the window, waiting for acknowledgements beats sending scraps.
const SCRAP: u64 = 2048;
/// Room for credit frames in one packet; more go with the next one.
const MAX_CREDITS: usize = 64;

impl Session {
    pub(super) fn transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Transmit> {
        out.clear();
        if let Some((path, datagram)) = self.outbox.pop_front() {
            out.extend_from_slice(&datagram);
            return Some(Transmit { path, class: Class::Control });
        }
        if self.phase == Phase::Handshake {
            return None;
        }
        let path = self.route.current()?;
        let (class, room) = self.next_packet(now)?;
        let channel = self.channel.as_mut()?;
        channel.begin(now, &self.config.rekey, out, &mut self.counters);
        let content = self.write_frames(now, class, room, out);
        let channel = self.channel.as_mut()?;
        channel.finish(now, class, content, out);
        Some(Transmit { path, class })
    }

    /// The class of the next packet and how many bytes of streams it may hold.
    fn next_packet(&mut self, now: Duration) -> Option<(Class, u64)> {
        let channel = self.channel.as_mut()?;
        let acknowledge = channel.received.due().is_some_and(|due| due <= now);
        if matches!(self.phase, Phase::Closed { .. }) {
            return (acknowledge || channel.pending.close.is_some()).then_some((Class::Control, 0));
        }
        let recovery = &channel.recovery;
        if let Some(class) = recovery.probe_wanted() {
            channel.pending.ping = true;
            return Some((class, 0));
        }
        if recovery.is_full() {
            return acknowledge.then_some((Class::Control, 0));
        }
        let stream = self.streams.next_class().and_then(|class| {
            let datagram = (ENVELOPE + MAX_FRAMES) as u64;
            let room = recovery.allowance(class == Class::Bulk, datagram).min(datagram);
            (room >= SCRAP).then(|| (class, room - ENVELOPE as u64))
        });
        let pending = acknowledge || channel.pending.any() || self.streams.has_credit();
        match stream {
            Some((Class::Normal, room)) => Some((Class::Normal, room)),
            _ if pending => Some((Class::Control, 0)),
            other => other,
        }
    }

    /// Writes the frames of a packet; what of them must arrive is returned.
    fn write_frames(&mut self, now: Duration, class: Class, room: u64, out: &mut Vec<u8>) -> Option<Content> {
        let channel = self.channel.as_mut()?;
        let start = out.len();
        let window = self.receive_window as u64;
        let mut content = Content::default();
        let mut eliciting = false;
        if channel.pending.close.is_some() {
            // The peer gives up what it sent and has no acknowledgement of: the last one may be lost.
            channel.received.force();
        }
        if class != Class::Bulk
            && let Some(ack) = channel.received.acknowledge(now, window)
        {
            Frame::Ack(ack).encode(out);
        }
        let pending = &mut channel.pending;
        if matches!(self.phase, Phase::Closed { .. }) {
            // Repeated when the peer shows that it did not hear it, so nothing needs to be kept.
            if let Some(code) = pending.close.take() {
                Frame::Close(code).encode(out);
            }
            return None;
        }
        if std::mem::take(&mut pending.ping) {
            Frame::Ping.encode(out);
            eliciting = true;
        }
        if class != Class::Bulk && !channel.recovery.is_full() {
            if std::mem::take(&mut pending.resume) {
                Frame::Resume.encode(out);
                content.resume = true;
            }
            if std::mem::take(&mut pending.accept) {
                let terms = Terms {
                    max_message: self.config.max_message as u64,
                    max_streams: u64::from(self.config.max_streams),
                    stream_window: self.config.stream_window as u64,
                    window,
                };
                Frame::Accept(terms).encode(out);
                content.accept = true;
            }
            for _ in 0..MAX_CREDITS {
                let Some((id, limit)) = self.streams.take_credit() else { break };
                Frame::Credit { id, limit }.encode(out);
                content.credit = true;
            }
            if let Some(code) = pending.close.take() {
                Frame::Close(code).encode(out);
                content.close = code == CloseCode::Done;
            }
        }
        let room = usize::try_from(room).unwrap_or(MAX_FRAMES).min(MAX_FRAMES);
        while let Some(most) = room.checked_sub(out.len() - start + STREAM_OVERHEAD + 1) {
            let Some((chunk, priority, again)) = self.streams.next_chunk(class, most as u64 + 1) else {
                break;
            };
            if again {
                self.counters.bytes_retransmitted += chunk.len;
            }
            let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
            put_stream_header(out, chunk.stream, priority, chunk.offset, len);
            self.streams.copy(chunk, out);
            content.chunks.push(chunk);
        }
        eliciting |= content.resume || content.accept || content.credit || content.close;
        (eliciting || !content.chunks.is_empty()).then_some(content)
    }
}
