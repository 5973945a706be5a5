//! A MySQL or MariaDB server: a read-only transaction for each run, over one connection to a checked address.
//!
//! The few messages that a read-only query needs are written here, so that what a server says is bounded before it is
//! allocated, and what a client should not be able to do cannot be asked of it.
//! Rows come as the server finds them; what is beyond a bound is left by hanging up.

mod wire;
mod parse;
mod login;

#[cfg(test)]
mod tests;

use std::time::Instant;

use tillwatch_border::{Cursor, PeerFault, Table};

use self::parse::{Pieces, push_bytes};
use self::wire::{Wire, malformed};
use super::super::PeerError;
use super::rows::{Rows, Value};
use super::{Server, SqlGrant, server};

/// Of login and descriptions, beside the rows.
const OVERHEAD_BYTES: usize = 1 << 20;

const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// The one connection to a server, while it is good.
#[derive(Default)]
pub(super) struct Mysql(Option<Wire>);

impl Mysql {
    /// # Errors
    /// Why there are no rows.
    pub(super) fn query(
        &mut self,
        server: &Server,
        grant: &SqlGrant,
        cursor: Option<Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        let kept = self.0.take();
        let ask = |wire| self.ask(wire, grant, cursor.as_ref(), deadline);
        server::ask_kept_or_new(kept, || connect(server, grant, deadline), ask)
    }

    /// Keeps the connection when it is still good.
    fn ask(
        &mut self,
        mut wire: Wire,
        grant: &SqlGrant,
        cursor: Option<&Cursor>,
        deadline: Instant,
    ) -> Result<Table, PeerError> {
        wire.allow(deadline, grant.table_bytes_max + OVERHEAD_BYTES);
        command(&mut wire, "START TRANSACTION READ ONLY")?;
        let statement = prepare(&mut wire, grant, cursor)?;
        let table = rows(&mut wire, grant, statement, cursor)?;
        if !table.more {
            wire.command(&[&[COM_STMT_CLOSE], &statement.to_le_bytes()[..]].concat())?;
            command(&mut wire, "ROLLBACK")?;
            self.0 = Some(wire);
        }
        Ok(table)
    }
}

fn connect(server: &Server, grant: &SqlGrant, deadline: Instant) -> Result<Wire, PeerError> {
    let password = server::password(server)?.unwrap_or_default();
    let mut wire = Wire::new(server::connect(server, deadline)?);
    wire.allow(deadline, OVERHEAD_BYTES);
    let (mut wire, is_mariadb) = login::log_in(wire, server, password.as_bytes())?;
    let ms = grant.timeout.as_millis();
    let timeout = if is_mariadb {
        format!("max_statement_time = {}.{:03}", ms / 1_000, ms % 1_000)
    } else {
        format!("max_execution_time = {ms}")
    };
    // One row more tells that there are more.
    let rows_max = grant.rows_max + 1;
    let bounds = format!("SET SESSION sql_select_limit = {rows_max}, {timeout}");
    command(&mut wire, "SET SESSION TRANSACTION READ ONLY")?;
    command(&mut wire, &bounds)?;
    Ok(wire)
}

/// A packet that must come.
fn expect(wire: &mut Wire) -> Result<Vec<u8>, PeerError> {
    let packet = wire.receive()?;
    packet.ok_or_else(|| PeerError::new(PeerFault::TooLarge, "the server says more than it may"))
}

/// A statement without rows.
fn command(wire: &mut Wire, sql: &str) -> Result<(), PeerError> {
    wire.command(&[&[COM_QUERY], sql.as_bytes()].concat())?;
    let answer = expect(wire)?;
    match answer.first() {
        Some(0x00) => Ok(()),
        Some(0xff) => Err(error_of(&answer)),
        _ => Err(malformed("the server answers with rows where there are none")),
    }
}

/// The statement's number. What has no columns is no query, and is not run.
fn prepare(wire: &mut Wire, grant: &SqlGrant, cursor: Option<&Cursor>) -> Result<u32, PeerError> {
    wire.command(&[&[COM_STMT_PREPARE], grant.query.as_bytes()].concat())?;
    let answer = expect(wire)?;
    let mut pieces = Pieces(&answer);
    if pieces.u8()? != 0 {
        return Err(error_of(&answer));
    }
    let statement = pieces.u32()?;
    let (columns, parameters) = (usize::from(pieces.u16()?), usize::from(pieces.u16()?));
    let (granted, wanted) = (grant.columns.len(), usize::from(cursor.is_some()));
    if columns == 0 || columns != granted || parameters != wanted {
        let why = format!(
            "the query has {columns} columns and {parameters} parameters, agent.toml names {granted} columns and {wanted} cursor"
        );
        return Err(PeerError::new(PeerFault::Malformed, why));
    }
    for count in [parameters, columns] {
        skip_descriptions(wire, count)?;
    }
    Ok(statement)
}

/// They come again with the rows.
fn skip_descriptions(wire: &mut Wire, count: usize) -> Result<(), PeerError> {
    let end = usize::from(count > 0);
    for _ in 0..count + end {
        expect(wire)?;
    }
    Ok(())
}

fn rows(wire: &mut Wire, grant: &SqlGrant, statement: u32, cursor: Option<&Cursor>) -> Result<Table, PeerError> {
    wire.command(&execution(statement, cursor))?;
    let columns = columns(wire)?;
    if columns.len() != grant.columns.len() {
        return Err(malformed("the rows are not those of the query"));
    }
    let mut rows = Rows::new(grant);
    loop {
        let Some(packet) = wire.receive()? else {
            rows.cut()?;
            return Ok(rows.table);
        };
        match packet.first() {
            Some(0x00) => {
                if !rows.push(row(&packet, &columns)?)? {
                    return Ok(rows.table);
                }
            }
            Some(0xfe) => return Ok(rows.table),
            _ => return Err(error_of(&packet)),
        }
    }
}

fn execution(statement: u32, cursor: Option<&Cursor>) -> Vec<u8> {
    let mut packet = vec![COM_STMT_EXECUTE];
    packet.extend_from_slice(&statement.to_le_bytes());
    // No cursor of the server's, and once.
    packet.extend_from_slice(&[0, 1, 0, 0, 0]);
    match cursor {
        None => {}
        // Not null, of a type that follows, and its value.
        Some(Cursor::Integer(integer)) => {
            packet.extend_from_slice(&[0, 1, kind::LONGLONG, 0]);
            packet.extend_from_slice(&integer.to_le_bytes());
        }
        Some(Cursor::Text(text)) => {
            packet.extend_from_slice(&[0, 1, kind::VAR_STRING, 0]);
            push_bytes(&mut packet, text.as_bytes());
        }
    }
    packet
}

/// What a column holds.
#[derive(Clone, Copy)]
struct Column {
    kind: u8,
    is_unsigned: bool,
}

/// Types of columns; sets and blobs of all sizes are between `ENUM` and `STRING`. Source: MySQL internals, "Column Types".
mod kind {
    pub(super) const TINY: u8 = 1;
    pub(super) const SHORT: u8 = 2;
    pub(super) const LONG: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const DOUBLE: u8 = 5;
    pub(super) const NULL: u8 = 6;
    pub(super) const LONGLONG: u8 = 8;
    pub(super) const INT24: u8 = 9;
    pub(super) const YEAR: u8 = 13;
    pub(super) const VARCHAR: u8 = 15;
    pub(super) const JSON: u8 = 245;
    pub(super) const ENUM: u8 = 247;
    pub(super) const VAR_STRING: u8 = 253;
    pub(super) const STRING: u8 = 254;
}

const UNSIGNED: u16 = 32;

fn columns(wire: &mut Wire) -> Result<Vec<Column>, PeerError> {
    let head = expect(wire)?;
    let count = match head.first() {
        Some(0xff) => return Err(error_of(&head)),
        // A file of this machine is asked for.
        Some(0xfb) => return Err(PeerError::denied("the server asks for a file")),
        _ => Pieces(&head).length()?,
    };
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(column(&expect(wire)?)?);
    }
    expect(wire)?;
    Ok(columns)
}

fn column(packet: &[u8]) -> Result<Column, PeerError> {
    let mut pieces = Pieces(packet);
    for _catalog_schema_table_original in 0..4 {
        pieces.bytes()?;
    }
    let name = pieces.bytes()?;
    pieces.bytes()?;
    // A length, the character set, the width.
    pieces.take(7)?;
    let kind = pieces.u8()?;
    let is_unsigned = pieces.u16()? & UNSIGNED != 0;
    let others = [kind::LONGLONG, kind::INT24, kind::YEAR, kind::VARCHAR, kind::JSON];
    let is_number = (kind::TINY..=kind::NULL).contains(&kind);
    let is_text = (kind::ENUM..=kind::STRING).contains(&kind);
    let is_read = is_number || is_text || others.contains(&kind);
    if !is_read {
        let name = String::from_utf8_lossy(name);
        let why = format!("column {name} is of type {kind}: cast it in the query, such as CAST({name} AS CHAR)");
        return Err(PeerError::new(PeerFault::Malformed, why));
    }
    Ok(Column { kind, is_unsigned })
}

fn row(packet: &[u8], columns: &[Column]) -> Result<Vec<Value>, PeerError> {
    let mut pieces = Pieces(packet);
    pieces.take(1)?;
    // Its first two bits are nobody's.
    let nulls = pieces.take((columns.len() + 2).div_ceil(8))?;
    let is_null = |index: usize| nulls[(index + 2) / 8] & (1 << ((index + 2) % 8)) != 0;
    let value = |(index, column): (usize, &Column)| match is_null(index) {
        true => Ok(Value::Null),
        false => value(&mut pieces, *column),
    };
    columns.iter().enumerate().map(value).collect()
}

fn value(pieces: &mut Pieces<'_>, column: Column) -> Result<Value, PeerError> {
    let integer: i64 = match (column.kind, column.is_unsigned) {
        (kind::NULL, _) => return Ok(Value::Null),
        (kind::FLOAT, _) => return Ok(Value::Real(f32::from_le_bytes(pieces.array()?).into())),
        (kind::DOUBLE, _) => return Ok(Value::Real(f64::from_le_bytes(pieces.array()?))),
        (kind::TINY, false) => i8::from_le_bytes(pieces.array()?).into(),
        (kind::TINY, true) => pieces.u8()?.into(),
        (kind::SHORT, false) => i16::from_le_bytes(pieces.array()?).into(),
        (kind::SHORT, true) | (kind::YEAR, _) => pieces.u16()?.into(),
        (kind::LONG | kind::INT24, false) => i32::from_le_bytes(pieces.array()?).into(),
        (kind::LONG | kind::INT24, true) => pieces.u32()?.into(),
        (kind::LONGLONG, false) => i64::from_le_bytes(pieces.array()?),
        (kind::LONGLONG, true) => i64::try_from(u64::from_le_bytes(pieces.array()?))
            .map_err(|_too_large| malformed("an unsigned value is too large for an integer"))?,
        _ => return Ok(Value::Text(String::from_utf8_lossy(pieces.bytes()?).into_owned())),
    };
    Ok(Value::Integer(integer))
}

/// What the server says may hold values of rows; only what is about the query or the login is shown.
fn error_of(packet: &[u8]) -> PeerError {
    told(packet).unwrap_or_else(|| malformed("the server says what makes no sense"))
}

fn told(packet: &[u8]) -> Option<PeerError> {
    let mut pieces = Pieces(packet.strip_prefix(&[0xff])?);
    let code = pieces.u16().ok()?;
    let (state, message) = match pieces.0.strip_prefix(b"#").and_then(|rest| rest.split_at_checked(5)) {
        Some((state, message)) => (state, message),
        None => (&b""[..], pieces.0),
    };
    let fault = match code {
        // Access denied, to the server, a database, a table, a column, a routine or a right.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 => PeerFault::Denied,
        // In a read-only transaction, or by a read-only server.
        1290 | 1792 => PeerFault::Denied,
        // Interrupted, or by a limit of time for a lock or a statement.
        1205 | 1317 | 1969 | 3024 => PeerFault::Timeout,
        // It ends, is full, keeps us out, or gave us up.
        1040 | 1053 | 1129 | 1130 | 1203 | 1226 | 1927 | 4031 => PeerFault::Unreachable,
        _ => PeerFault::Malformed,
    };
    let is_about_us = [&b"25"[..], b"28", b"42"].iter().any(|class| state.starts_with(class));
    let message = if is_about_us {
        String::from_utf8_lossy(message)
    } else {
        "".into()
    };
    Some(PeerError::new(
        fault,
        format!("the server refuses it, {code}: {message}"),
    ))
}
