//! What happens later: dispatch, jobs, recipes, syncs, buckets, destinations, retention.
