//! How we call others: the only HTTP client, its address guard, TLS and credentials.
