//! Pre-trade limits, atomic reservations, positions and P&L
