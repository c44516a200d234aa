"""The service: the contract's RPCs as plain methods, and the gRPC server and processes around them.

- Requests: `servicer` (the RPCs), `chunks` (sampling and framing), `ahead`, `turns`, `errors`.
- In the calling process, without gRPC: `local`.
- The gRPC server: `server`, `handlers`, `health`, `admission`, `stalls`, `balance`, `listening`.
- Access control: `access`, `tls`, `tokens`.
- What operators see: `observer`, `call`, `logs`, `metrics`, `metrics_http`, `tracing`.
- The processes of ``seedbed serve``: `process`, `workers`, `sizing`, `signals`.
- All options of ``seedbed serve``: `settings`.
"""
