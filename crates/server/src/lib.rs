//! What others call: ingress, the operator API, probes, OpenAPI.
