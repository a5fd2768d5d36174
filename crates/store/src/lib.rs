//! What is remembered: all SQL of Linkspan's own database, secrets at rest, the spool.
