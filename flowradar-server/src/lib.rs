//! FlowRadar's collector as a service.
