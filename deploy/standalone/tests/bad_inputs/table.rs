//! The whole table, many times over, against one server.

use crate::common::{DEV, Server, data_dir};
use crate::peer::{Expect, Peer, Stage};
use crate::{binary, frames, handshake, process, requests};

/// One bad input.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) stage: Stage,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expect: Expect,
}

pub(crate) fn row(name: &str, stage: Stage, bytes: impl Into<Vec<u8>>, expect: Expect) -> Row {
    Row { name: name.to_owned(), stage, bytes: bytes.into(), expect }
}

/// How often the table runs for the check that nothing stays.
const ROUNDS: usize = 20;
/// What memory may have grown by over these rounds: 20 rounds of some 130 connections that each left a
/// kilobyte behind would show as 2.6 MB.
const GROWTH_MAX_KIB: u64 = 2_048;

#[test]
fn every_bad_input_gets_its_answer_and_leaves_nothing_behind() {
    let data = data_dir();
    let more = ["--allowed-origins", "https://chat.example.org", "--deflate"];
    let server = Server::start(data.path(), &[DEV, &more[..]].concat());
    let mut healthy = server.dev_user("alice");
    healthy.send("bad", "before", "still here?");
    let rows: Vec<Row> =
        [handshake::rows(), frames::rows(), binary::rows(), requests::rows()].concat_rows();
    assert!(rows.len() > 100, "{} rows", rows.len());

    run(&server, &rows);
    let warm = process::settled(server.pid());
    for _ in 0..ROUNDS {
        run(&server, &rows);
    }
    let after = process::settled(server.pid());
    println!("{} rows, {ROUNDS} rounds: {warm:?} -> {after:?}", rows.len());
    assert_eq!(after.descriptors, warm.descriptors);
    assert!(after.anonymous_kib <= warm.anonymous_kib + GROWTH_MAX_KIB, "{warm:?} -> {after:?}");
    // A retry of what was sent before it all: the same connection, the same place.
    assert_eq!(healthy.send("bad", "before", "still here?")["seq"], 1);
    assert_eq!(healthy.pull("bad", 0, 10)["payload"].as_array().unwrap().len(), 1);
}

fn run(server: &Server, rows: &[Row]) {
    for row in rows {
        let mut peer = Peer::at(&server.addr, row.stage);
        peer.send(&row.bytes);
        peer.expect(&row.name, row.stage, row.expect);
    }
}

trait ConcatRows {
    fn concat_rows(self) -> Vec<Row>;
}

impl<const N: usize> ConcatRows for [Vec<Row>; N] {
    fn concat_rows(self) -> Vec<Row> {
        self.into_iter().flatten().collect()
    }
}
