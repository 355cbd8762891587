//! One direction of a TCP connection: its bytes, in order, go through the reader of the protocol that
//! it speaks.

use super::{
    Found, Limits, Output, Stamp,
    choice::{Choice, Protocol, choose},
    connection::Shared,
    order::Piece,
    reader::Reader,
    table::Key,
};
use crate::l7::{Fact, Step, Way};

/// Bytes of one unfinished message that are kept. Readers of longer ones keep what they need.
const MAX_MESSAGE: usize = 96 << 10;

/// One direction.
#[derive(Default)]
pub(super) struct Half {
    /// The unfinished message.
    buffer: Vec<u8>,
    /// Bytes to come that nobody needs.
    skip: u64,
    reader: Reader,
    /// Bytes read so far.
    seen: u64,
    /// The packet that completes what is being read.
    last: Stamp,
    left_alone: bool,
    /// What the first bytes were taken for.
    origin: Option<Choice>,
    /// What the reader was last chosen for.
    speaks: Option<Protocol>,
    /// What messages said whose bodies are still to come.
    held: Vec<Held>,
    /// Bytes of what they said.
    held_bytes: usize,
}

/// What a message said, and the packet that said it.
struct Held {
    fact: Fact,
    stamp: Stamp,
    opening: bool,
}

/// How a run over the bytes ended.
enum Rest {
    /// From here on they are needed again.
    Keep(usize),
    /// None of them is needed again.
    Done,
}

/// What one step came to.
enum Progress {
    /// So many bytes are read.
    Took(u64),
    /// The message goes on.
    Wait,
    /// Nothing that can be read begins here.
    Lost,
    /// To be tried once more, with a reader chosen anew.
    Again,
}

/// What a direction needs of the connection while it reads.
pub(super) struct Context<'c, 'o> {
    pub(super) key: &'c Key,
    /// From the key's first end to its second.
    pub(super) forth: bool,
    pub(super) shared: &'c mut Shared,
    pub(super) output: &'c mut Output<'o>,
}

impl Context<'_, '_> {
    fn limits(&self) -> &Limits {
        &self.output.limits
    }

    fn way(&self) -> Way {
        if self.forth { Way::Forth } else { Way::Back }
    }

    fn found(&mut self, Held { fact, stamp, opening }: Held) {
        let [first, second] = self.key.0;
        let (source, destination) = if self.forth { (first, second) } else { (second, first) };
        self.output.facts.push(Found { fact, source, destination, stamp, opening });
    }
}

impl Half {
    /// Bytes that are kept.
    pub(super) fn kept(&self) -> usize {
        self.waiting() + self.reader.kept() + self.held_bytes
    }

    /// Bytes of the message that goes on.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len() + self.reader.waiting()
    }

    /// Bytes to come that need not be seen.
    pub(super) fn unwanted(&self) -> u64 {
        if self.left_alone {
            return u64::MAX;
        }
        // Whether the body comes whole is still to be seen.
        if self.held.is_empty() { self.skip } else { 0 }
    }

    /// Takes the next piece of the stream.
    pub(super) fn piece(&mut self, piece: Piece<'_>, context: &mut Context<'_, '_>) {
        match piece {
            Piece::Data(bytes, stamp) => self.data(bytes, stamp, context),
            Piece::Cut(length) => {
                self.skip += self.reader.take_body();
                context.output.counts.gaps += length;
                let buffer = std::mem::take(&mut self.buffer);
                if let Some(fact) = self.reader.cut(context.shared, &buffer) {
                    self.cut(fact, context);
                }
                self.release_cut(context);
                self.gap(length, context);
            }
            Piece::Gap(length) => {
                self.skip += self.reader.take_body();
                context.output.counts.gaps += length.saturating_sub(self.skip);
                self.gap(length, context);
            }
        }
    }

    /// The rest of a body was lost, or nothing more will come.
    pub(super) fn finish(&mut self, context: &mut Context<'_, '_>) {
        context.output.counts.unfinished += self.held.len() as u64;
        self.held.clear();
        self.held_bytes = 0;
    }

    /// A fact of the packet that came last.
    fn said(&self, fact: Fact) -> Held {
        // A message that was cut off before its protocol could be told stands at the front, too.
        let opening = match (self.origin, self.speaks) {
            (None, _) => true,
            (Some(origin), speaks) => speaks.map(Choice::Is) == Some(origin),
        };
        Held { fact, stamp: self.last, opening }
    }

    /// Bytes are missing. Inside what is passed over that is no matter; elsewhere the next segment
    /// is taken for the beginning of a message, if it looks like one.
    fn gap(&mut self, length: u64, context: &mut Context<'_, '_>) {
        self.finish(context);
        if length <= self.skip {
            self.skip -= length;
            return;
        }
        self.skip = 0;
        self.buffer = Vec::new();
        self.reader = Reader::Undecided;
    }

    fn data(&mut self, bytes: &[u8], stamp: Stamp, context: &mut Context<'_, '_>) {
        if self.left_alone {
            return;
        }
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        // What goes on is completed by whichever of its packets came last, not by its last bytes.
        let goes_on = self.waiting() > 0 || !self.held.is_empty();
        let later = goes_on && self.last.frame > stamp.frame;
        self.last = if later { self.last } else { stamp };
        self.release(context);
        let bytes = &bytes[skipped as usize..];
        if !bytes.is_empty() {
            self.read(bytes, context);
        }
    }

    /// What was held back counts, once its body is whole.
    fn release(&mut self, context: &mut Context<'_, '_>) {
        if !self.held.is_empty() && self.skip == 0 && !self.reader.in_body() {
            for held in self.held.drain(..) {
                context.found(Held { stamp: self.last, ..held });
            }
            self.held_bytes = 0;
        }
    }

    /// What a message says that the capture cut off. Dissectors read what is there of a head of HTTP,
    /// and nothing of a hello.
    fn cut(&mut self, fact: Fact, context: &mut Context<'_, '_>) {
        if matches!(fact, Fact::Tls(_)) && context.limits().whole_messages {
            context.output.counts.unfinished += 1;
        } else {
            context.found(self.said(fact));
        }
    }

    /// Of a message in the very segment that the capture cut off, no more of the body can be asked.
    fn release_cut(&mut self, context: &mut Context<'_, '_>) {
        for held in self.held.extract_if(.., |held| held.stamp == self.last) {
            self.held_bytes -= held.fact.heap_bytes();
            context.found(held);
        }
    }

    fn read(&mut self, bytes: &[u8], context: &mut Context<'_, '_>) {
        self.seen += bytes.len() as u64;
        if self.buffer.is_empty() {
            if let Rest::Keep(from) = self.run(bytes, 0, context) {
                self.buffer.extend_from_slice(&bytes[from..]);
            }
        } else {
            let mut buffer = std::mem::take(&mut self.buffer);
            let newest = buffer.len();
            buffer.extend_from_slice(bytes);
            if let Rest::Keep(from) = self.run(&buffer, newest, context) {
                // Of a long message that is read no room is left behind.
                self.buffer = if from == 0 { buffer } else { buffer[from..].to_vec() };
            }
        }
        if context.limits().stream.is_some_and(|limit| self.seen >= limit) {
            context.output.counts.left_alone += 1;
            self.left_alone = true;
            self.buffer = Vec::new();
        }
    }

    /// Reads messages until the bytes end. The newest segment begins at `newest`: what is damaged
    /// before it does not make it unreadable.
    fn run(&mut self, bytes: &[u8], newest: usize, context: &mut Context<'_, '_>) -> Rest {
        let mut at = 0;
        let mut untried = true;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.step(rest, untried, context) {
                Progress::Took(consumed) => {
                    untried = true;
                    let here = rest.len() as u64;
                    if consumed > here {
                        self.skip = consumed - here;
                        return Rest::Done;
                    }
                    at += consumed as usize;
                    self.release(context);
                }
                Progress::Again => {
                    untried = false;
                    // The damage is behind the message: a chunk's length, say.
                    self.release(context);
                }
                Progress::Wait if rest.len() < MAX_MESSAGE => return Rest::Keep(at),
                Progress::Wait | Progress::Lost => {
                    self.reader = Reader::Undecided;
                    self.release(context);
                    if at >= newest {
                        return Rest::Done;
                    }
                    at = newest;
                    untried = true;
                }
            }
        }
        Rest::Done
    }

    /// One step of the reader, which is chosen first if there is none.
    fn step(&mut self, rest: &[u8], untried: bool, context: &mut Context<'_, '_>) -> Progress {
        let chosen = matches!(self.reader, Reader::Undecided);
        if chosen {
            let shared = &context.shared;
            let choice = choose(context.key.0, shared.http(), shared.wanted(), rest);
            if choice != Choice::Wait {
                self.origin.get_or_insert(choice);
            }
            match choice {
                Choice::Is(protocol) => {
                    self.reader = Reader::of(protocol);
                    self.speaks = Some(protocol);
                }
                Choice::Wait => return Progress::Wait,
                Choice::Unknown => return Progress::Lost,
            }
        }
        match self.reader.step(context.shared, context.way(), rest) {
            Step::More => Progress::Wait,
            Step::Took { consumed, mut facts } if consumed > 0 => {
                let goes_on = consumed > rest.len() as u64 || self.reader.in_body();
                let held = goes_on && context.limits().whole_messages;
                for fact in facts.drain(..) {
                    if held {
                        self.held_bytes += fact.heap_bytes();
                        self.held.push(self.said(fact));
                    } else {
                        context.found(self.said(fact));
                    }
                }
                if self.reader.switched() {
                    self.reader = Reader::Undecided;
                }
                Progress::Took(consumed)
            }
            // Another protocol may begin here, where the one before has ended.
            Step::Not if !chosen && untried => {
                self.reader = Reader::Undecided;
                Progress::Again
            }
            Step::Took { .. } | Step::Not => Progress::Lost,
        }
    }
}
