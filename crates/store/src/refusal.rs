//! Refusals: requests that were not accepted, with their cause, for the operator's eyes.

use std::collections::BTreeSet;

use linkspan_model::event::Headers;
use linkspan_model::{Name, Timestamp, limits};
use rusqlite::{Connection, Row, params};

use crate::Store;
use crate::error::Result;

/// A request that was not accepted.
#[derive(Debug, Clone)]
pub struct NewRefusal {
    /// The endpoint's row, when the URL named one.
    pub endpoint: Option<i64>,
    /// When it came.
    pub at: Timestamp,
    /// The status that the caller saw.
    pub status: u16,
    /// Dotted slug of the cause.
    pub code: String,
    /// The cause, for the operator.
    pub cause: String,
    /// The method.
    pub method: String,
    /// The caller's address.
    pub remote: Option<String>,
    /// The headers, credentials masked.
    pub headers: Headers,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// The size of the whole body, as far as it was read.
    pub body_size: u64,
}

/// A kept refusal.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its position among the refusals.
    pub seq: u64,
    /// The endpoint's name.
    pub endpoint: Option<Name>,
    /// The rest.
    pub refusal: NewRefusal,
}

/// Which refusals to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct RefusalFilter {
    /// Only of this endpoint.
    pub endpoint: Option<Name>,
    /// Only older than this one.
    pub before: Option<u64>,
    /// Most refusals.
    pub limit: u32,
}

/// Most refusals of one write: each endpoint among them costs a look at all that it has.
const AT_ONCE: usize = 16;

impl Store {
    /// Keeps refusals; the oldest of an endpoint go when it has more than 1,000.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn record_refusals(&self, refusals: Vec<NewRefusal>) -> Result<()> {
        self.refuse_when_full()?;
        let mut refusals = refusals;
        while !refusals.is_empty() {
            let later = refusals.split_off(refusals.len().min(AT_ONCE));
            let now = std::mem::replace(&mut refusals, later);
            self.write(move |db| {
                for refusal in &now {
                    insert(db, refusal)?;
                }
                let endpoints: BTreeSet<Option<i64>> = now.iter().map(|refusal| refusal.endpoint).collect();
                endpoints.into_iter().try_for_each(|endpoint| trim(db, endpoint))
            })
            .await?;
        }
        Ok(())
    }

    /// A page of refusals.
    ///
    /// # Errors
    /// `NotFound` when there is no such endpoint.
    pub async fn refusals(&self, filter: RefusalFilter) -> Result<Vec<Refusal>> {
        self.read(move |db| {
            let endpoint = match &filter.endpoint {
                Some(name) => Some(crate::resource::row_of(db, linkspan_model::Kind::Endpoint, name)?),
                None => None,
            };
            let of_endpoint = if endpoint.is_some() { "f.endpoint = ?1" } else { "?1 IS NULL" };
            let sql = format!(
                "SELECT f.seq, f.at, f.status, f.code, f.cause, f.method, f.remote, f.headers, f.body, f.body_size,
                        f.endpoint, r.name
                 FROM refusals f LEFT JOIN resources r ON r.id = f.endpoint
                 WHERE {of_endpoint} AND f.seq < ?2 ORDER BY f.seq DESC LIMIT ?3"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let before = filter.before.unwrap_or(i64::MAX as u64).min(i64::MAX as u64).cast_signed();
            let mut rows = statement.query(params![endpoint, before, filter.limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(refusal_of(row)?);
            }
            Ok(found)
        })
        .await
    }
}

fn insert(db: &Connection, refusal: &NewRefusal) -> Result<()> {
    let kept = refusal.body.len().min(limits::REFUSAL_BODY_BYTES);
    db.prepare_cached(
        "INSERT INTO refusals (endpoint, at, status, code, cause, method, remote, headers, body, body_size)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        refusal.endpoint,
        refusal.at.as_micros(),
        refusal.status,
        refusal.code,
        refusal.cause,
        refusal.method,
        refusal.remote,
        serde_json::to_vec(&refusal.headers)?,
        &refusal.body[..kept],
        refusal.body_size.cast_signed()
    ])?;
    Ok(())
}

/// Keeps the newest of an endpoint, which it passes to find the others.
fn trim(db: &Connection, endpoint: Option<i64>) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM refusals WHERE endpoint IS ?1 AND seq <= (
             SELECT seq FROM refusals WHERE endpoint IS ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![endpoint, limits::REFUSALS_KEPT.cast_signed()])?;
    Ok(())
}

fn refusal_of(row: &Row<'_>) -> Result<Refusal> {
    let name: Option<String> = row.get(11)?;
    let code: String = row.get(3)?;
    Ok(Refusal {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        endpoint: name.and_then(|name| name.parse().ok()),
        refusal: NewRefusal {
            at: Timestamp::from_micros(row.get(1)?),
            status: row.get(2)?,
            code,
            cause: row.get(4)?,
            method: row.get(5)?,
            remote: row.get(6)?,
            headers: serde_json::from_slice(&row.get::<_, Vec<u8>>(7)?)?,
            body: row.get::<_, Option<Vec<u8>>>(8)?.unwrap_or_default(),
            body_size: row.get::<_, i64>(9)?.cast_unsigned(),
            endpoint: row.get(10)?,
        },
    })
}
