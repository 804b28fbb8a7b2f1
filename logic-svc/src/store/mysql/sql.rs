//! Statements of many rows. Row counts come from a small set, so that statements prepared once are used again.

use mysql::prelude::{FromRow, Queryable};
use mysql::{Conn, Params, Value, from_row_opt};

use super::error::Fault;

/// Most entries of a list inside one statement.
pub(super) const LIST_MAX: usize = 512;
/// Most alternatives of several columns inside one statement.
pub(super) const ALTERNATIVES_MAX: usize = 64;

/// Whether something answers yes.
pub(super) type Work<T> = Result<T, Fault>;

/// All rows of an answer.
pub(super) fn rows<T: FromRow>(
    connection: &mut Conn,
    sql: &str,
    values: impl Into<Params>,
) -> Work<Vec<T>> {
    let mut found = Vec::new();
    for row in connection.exec_iter(sql, values)? {
        let row = from_row_opt(row?).map_err(|_| Fault::corrupt("a row of an unexpected form"))?;
        found.push(row);
    }
    Ok(found)
}

/// The first row of an answer.
pub(super) fn first<T: FromRow>(
    connection: &mut Conn,
    sql: &str,
    values: impl Into<Params>,
) -> Work<Option<T>> {
    Ok(rows(connection, sql, values)?.into_iter().next())
}

/// Runs a statement that gives no rows.
pub(super) fn run(connection: &mut Conn, sql: &str, values: impl Into<Params>) -> Work<()> {
    Ok(connection.exec_drop(sql, values)?)
}

/// `part` so many times, with `between` between.
pub(super) fn repeat(part: &str, between: &str, count: usize) -> String {
    let mut text = String::with_capacity(count * (part.len() + between.len()));
    for n in 0..count {
        if n > 0 {
            text.push_str(between);
        }
        text.push_str(part);
    }
    text
}

/// Runs `select` (with `{}` where the list goes) for all of `keys`; repeats the last one where a list is padded.
pub(super) fn rows_in<K, V, T>(
    connection: &mut Conn,
    select: (&str, &str),
    keys: &[K],
    value: impl Fn(&K) -> V,
) -> Work<Vec<T>>
where
    V: Into<Value>,
    T: FromRow,
{
    rows_of_each(connection, select, ("?", ","), LIST_MAX, keys, |key, into| {
        into.push(value(key).into());
    })
}

/// Like [`rows_in`] with `part` for each key, at most `most` of them in a statement.
pub(super) fn rows_of_each<K, T: FromRow>(
    connection: &mut Conn,
    (before, after): (&str, &str),
    (part, between): (&str, &str),
    most: usize,
    keys: &[K],
    values: impl Fn(&K, &mut Vec<Value>),
) -> Work<Vec<T>> {
    let mut found = Vec::new();
    for chunk in keys.chunks(most) {
        let padded = chunk.len().next_power_of_two();
        let sql = format!("{before}{}{after}", repeat(part, between, padded));
        let mut into = Vec::new();
        let last = chunk.last().into_iter().cycle().take(padded - chunk.len());
        chunk.iter().chain(last).for_each(|key| values(key, &mut into));
        found.append(&mut rows(connection, &sql, Params::Positional(into))?);
    }
    Ok(found)
}

/// Runs a statement of many rows in pieces whose sizes are powers of two.
pub(super) fn run_each<K>(
    connection: &mut Conn,
    (before, after): (&str, &str),
    (part, between): (&str, &str),
    most: usize,
    mut keys: &[K],
    values: impl Fn(&K, &mut Vec<Value>),
) -> Work<()> {
    while !keys.is_empty() {
        let size = (1 << keys.len().ilog2()).min(most);
        let (chunk, rest) = keys.split_at(size);
        let sql = format!("{before}{}{after}", repeat(part, between, size));
        let mut into = Vec::new();
        chunk.iter().for_each(|key| values(key, &mut into));
        run(connection, &sql, Params::Positional(into))?;
        keys = rest;
    }
    Ok(())
}
