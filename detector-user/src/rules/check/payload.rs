//! Payload bytes: within what is looked at, at one place, at most so many pieces.

use std::collections::HashMap;

use detector_common::event::MAX_CAPTURE;

use crate::{
    rules::{
        raw::{PayloadSpec, PieceSpec},
        term::{HexBytes, MAX_PIECES, PayloadPattern, PayloadPiece, PayloadTerm, PiecePlace},
    },
    yaml::{Field, OneOrMany, Problem},
};

pub(super) fn check(
    field: &Field<OneOrMany<PayloadSpec>>,
    problems: &mut Vec<Problem>,
) -> Option<PayloadTerm> {
    let any: Vec<PayloadPattern> = match field.get()? {
        OneOrMany::One(spec) => pattern(field, spec, problems).into_iter().collect(),
        OneOrMany::Many(list) => {
            if list.is_empty() {
                problems.push(field.problem("is empty; expected at least one piece"));
            }
            let each = |item: &Field<PayloadSpec>| pattern(item, item.get()?, problems);
            list.iter().filter_map(each).collect()
        }
    };
    let pieces: usize = any.iter().map(|pattern| pattern.all.len()).sum();
    if pieces > MAX_PIECES {
        problems.push(
            field.problem(format!("has {pieces} pieces; expected at most {MAX_PIECES} in a rule")),
        );
    }
    (!any.is_empty()).then_some(PayloadTerm { any })
}

fn pattern<T>(
    field: &Field<T>,
    spec: &PayloadSpec,
    problems: &mut Vec<Problem>,
) -> Option<PayloadPattern> {
    let PayloadSpec { all, hex, text, mask, at, within } = spec;
    let own = Piece { hex, text, mask, at, within };
    let Some(all) = all else {
        return Some(PayloadPattern { all: vec![piece(field, &own, problems)?] });
    };
    if own.written() {
        problems.push(all.problem(
            "stands beside a piece of its own; expected all: [...] alone, or hex or text",
        ));
    }
    let list = all.get()?;
    if list.is_empty() {
        problems.push(all.problem("is empty; expected at least one piece"));
    }
    let each = |item: &Field<PieceSpec>| {
        let PieceSpec { hex, text, mask, at, within } = item.get()?;
        piece(item, &Piece { hex, text, mask, at, within }, problems)
    };
    let pieces: Vec<PayloadPiece> = list.iter().filter_map(each).collect();
    if let Some(at) = contradiction(&pieces) {
        problems.push(all.problem(format!(
            "can never match: two pieces want different bytes at {at} from the payload's start; \
             expected one of them (a list beside all is of alternatives)"
        )));
    }
    Some(PayloadPattern { all: pieces })
}

/// Where two pieces at fixed places contradict each other, in bytes from the payload's start.
fn contradiction(pieces: &[PayloadPiece]) -> Option<usize> {
    let mut known: HashMap<usize, (u8, u8)> = HashMap::new();
    for piece in pieces {
        let PiecePlace::At(offset) = piece.place else { continue };
        for (at, (byte, mask)) in (usize::from(offset)..).zip(piece.bytes.iter().zip(&piece.mask)) {
            let (value, bits) = known.entry(at).or_default();
            if (*value ^ byte) & *bits & mask != 0 {
                return Some(at);
            }
            (*value, *bits) = (*value | byte, *bits | mask);
        }
    }
    None
}

/// A piece as it is written, alone or in a list.
struct Piece<'a> {
    hex: &'a Option<Field<HexBytes>>,
    text: &'a Option<Field<String>>,
    mask: &'a Option<Field<HexBytes>>,
    at: &'a Option<Field<u64>>,
    within: &'a Option<Field<u64>>,
}

impl Piece<'_> {
    fn written(&self) -> bool {
        self.hex.is_some()
            || self.text.is_some()
            || self.mask.is_some()
            || self.at.is_some()
            || self.within.is_some()
    }
}

fn piece<T>(
    field: &Field<T>,
    spec: &Piece<'_>,
    problems: &mut Vec<Problem>,
) -> Option<PayloadPiece> {
    let HexBytes { bytes, mask } = match (spec.hex, spec.text) {
        (Some(hex), None) => hex.get()?.clone(),
        (None, Some(text)) => {
            let bytes = text.get()?.as_bytes().to_vec();
            HexBytes { mask: vec![0xff; bytes.len()], bytes }
        }
        (None, None) => {
            problems.push(field.problem("names no bytes; expected hex or text"));
            return None;
        }
        (Some(_), Some(text)) => {
            problems.push(text.problem("stands beside hex; expected only one of the two"));
            return None;
        }
    };
    let mask = masked(spec, mask, problems)?;
    if bytes.is_empty() || mask.iter().all(|mask| *mask == 0) {
        problems.push(field.problem("asks for nothing; expected at least one bit that counts"));
        return None;
    }
    if let (Some(_), Some(written)) = (spec.mask, spec.hex)
        && bytes.iter().zip(&mask).any(|(byte, mask)| byte & !mask != 0)
    {
        problems.push(written.problem(
            "has bits that the mask leaves out; expected 0 there, so that it is clear what is meant",
        ));
    }
    let place = place(field, spec, bytes.len(), problems)?;
    Some(PayloadPiece { bytes, mask, place })
}

/// The mask that is written, or the one that `?` makes.
fn masked(spec: &Piece<'_>, implied: Vec<u8>, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let Some(field) = spec.mask else { return Some(implied) };
    let written = field.get()?;
    let refuse = |message: String| Some(field.problem(message));
    let problem = if spec.hex.is_none() {
        refuse("stands without hex; expected hex beside it, or no mask".to_owned())
    } else if implied.iter().any(|mask| *mask != 0xff) {
        refuse("stands beside hex with ?; expected only one of the two".to_owned())
    } else if written.mask.iter().any(|mask| *mask != 0xff) {
        refuse("has ?; expected hexadecimal bytes, their bits 1 where they count".to_owned())
    } else if written.bytes.len() != implied.len() {
        let (mask, hex) = (written.bytes.len(), implied.len());
        refuse(format!("has {mask} bytes, and hex has {hex}; expected as many"))
    } else {
        None
    };
    match problem {
        Some(problem) => {
            problems.push(problem);
            None
        }
        None => Some(written.bytes.clone()),
    }
}

fn place<T>(
    field: &Field<T>,
    spec: &Piece<'_>,
    length: usize,
    problems: &mut Vec<Problem>,
) -> Option<PiecePlace> {
    let most = MAX_CAPTURE as u64;
    let beyond = |end: u64| {
        format!(
            "can never match: it ends {end} bytes from the payload's start, and {most} are looked at"
        )
    };
    match (spec.at, spec.within) {
        (Some(_), Some(within)) => {
            problems.push(within.problem("stands beside at; expected only one of the two"));
            None
        }
        (None, Some(within)) => {
            let bytes = *within.get()?;
            let narrow = u16::try_from(bytes).ok().filter(|_| bytes <= most);
            if narrow.is_none() {
                problems.push(within.problem(format!("is {bytes}; expected at most {most}")));
            } else if bytes < length as u64 {
                problems
                    .push(within.problem(format!(
                        "can never match: {length} bytes are not within {bytes}"
                    )));
            }
            narrow.map(PiecePlace::Within)
        }
        (at, None) => {
            let offset = at.as_ref().map_or(Some(0), |at| at.get().copied())?;
            let end = offset.saturating_add(length as u64);
            if end > most {
                let problem = match at {
                    Some(at) => at.problem(beyond(end)),
                    None => field.problem(beyond(end)),
                };
                problems.push(problem);
                return None;
            }
            u16::try_from(offset).ok().map(PiecePlace::At)
        }
    }
}
