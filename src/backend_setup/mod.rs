//! The scripts that make a host answer for a VIP (DSR), rendered for each frontend and server.
