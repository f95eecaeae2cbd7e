//! pypool
