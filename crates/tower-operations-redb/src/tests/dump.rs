//! The rows of a file as text, and back.

use std::collections::BTreeMap;

use ::redb::{Database, ReadableDatabase, ReadableTable};

use super::Disk;
use crate::tables::{
    BARE_KEYS, CELLS, EXPIRY, KEY_EXPIRY, KEYS, LEASED, LISTED, META, REQUESTS, RESULTS, SECRETS,
};

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// Returns all rows, one per line.
pub(super) fn dump(database: &Database) -> String {
    let read = database.begin_read().unwrap();
    let mut lines = Vec::new();
    macro_rules! dump {
        ($($table:ident ($key:pat => $($key_part:expr),+) ($value:pat => $value_part:expr))*) => {
            $(for entry in read.open_table($table).unwrap().iter().unwrap() {
                let (key, value) = entry.unwrap();
                let ($key, $value) = (key.value(), value.value());
                let table = ::redb::TableHandle::name(&$table);
                lines.push([table.to_owned(), $($key_part,)+ $value_part].join(" "));
            })*
        };
    }
    // The secret is random.
    let secrets = read.open_table(SECRETS).unwrap();
    for entry in secrets.iter().unwrap() {
        let (name, secret) = entry.unwrap();
        let bytes = secret.value().len();
        lines.push(format!("secrets {} {bytes}", name.value()));
    }
    dump! {
        META (key => key.to_owned()) (value => value.to_string())
        CELLS (id => quoted(id)) (row => quoted(row))
        RESULTS (id => quoted(id)) (result => quoted(result))
        REQUESTS (id => quoted(id)) (request => quoted(request))
        KEYS (name => quoted(name)) (row => quoted(row))
        EXPIRY ((at, number) => at.to_string(), number.to_string()) (id => quoted(id))
        KEY_EXPIRY ((at, name) => at.to_string()) (() => quoted(name))
        LEASED (number => number.to_string()) (id => quoted(id))
        LISTED ((owner, number) => owner.map_or("-".into(), quoted), number.to_string()) (id => quoted(id))
    }
    lines.join("\n") + "\n"
}

/// Returns the fields of a line, without the quotes of [`quoted`]. Between fields are blanks;
/// within a field, a blank is in quotes.
fn fields(line: &str) -> Vec<Vec<u8>> {
    let (mut fields, mut bytes) = (vec![Vec::new()], line.bytes());
    let mut is_quoted = false;
    while let Some(byte) = bytes.next() {
        let field = fields.last_mut().unwrap();
        match byte {
            b'"' => is_quoted = !is_quoted,
            b' ' if !is_quoted => fields.push(Vec::new()),
            b'\\' => field.push(match bytes.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
                }
                other => other,
            }),
            other => field.push(other),
        }
    }
    fields
}

/// Returns a disk with these rows.
pub(super) fn load(dump: &str) -> Disk {
    let disk = Disk::default();
    let database = Database::builder()
        .create_with_backend(disk.clone())
        .unwrap();
    let write = database.begin_write().unwrap();
    let number = |field: &[u8]| -> u64 { std::str::from_utf8(field).unwrap().parse().unwrap() };
    for line in dump.lines() {
        let fields = fields(line);
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        let blobs = BTreeMap::from([
            (&b"cells"[..], CELLS),
            (b"results", RESULTS),
            (b"requests", REQUESTS),
            (b"keys", BARE_KEYS),
            (b"scoped_keys", KEYS),
        ]);
        match fields[..] {
            [b"meta", key, value] => {
                let key = std::str::from_utf8(key).unwrap();
                drop(
                    write
                        .open_table(META)
                        .unwrap()
                        .insert(key, number(value))
                        .unwrap(),
                );
            }
            [b"expiry", at, of, id] => {
                let key = (number(at), number(of));
                drop(write.open_table(EXPIRY).unwrap().insert(key, id).unwrap());
            }
            [b"key_expiry", at, name] => {
                let key = (number(at), name);
                drop(
                    write
                        .open_table(KEY_EXPIRY)
                        .unwrap()
                        .insert(key, ())
                        .unwrap(),
                );
            }
            [b"secrets", name, bytes] => {
                let (name, bytes) = (std::str::from_utf8(name).unwrap(), number(bytes));
                let secret = vec![7; usize::try_from(bytes).unwrap()];
                let mut secrets = write.open_table(SECRETS).unwrap();
                secrets.insert(name, &*secret).unwrap();
            }
            [b"leased", of, id] => {
                drop(
                    write
                        .open_table(LEASED)
                        .unwrap()
                        .insert(number(of), id)
                        .unwrap(),
                );
            }
            [b"listed", owner, of, id] => {
                let key = (Some(owner).filter(|owner| *owner != b"-"), number(of));
                drop(write.open_table(LISTED).unwrap().insert(key, id).unwrap());
            }
            [table, key, value] => {
                let mut table = write.open_table(blobs[table]).unwrap();
                table.insert(key, value).unwrap();
            }
            _ => panic!("{line}"),
        }
    }
    write.commit().unwrap();
    drop(database);
    disk
}

#[test]
fn rows_survive_a_round_trip_through_text() {
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(fields(&format!("a {} b", quoted(&bytes)))[1], bytes);
}
