//! Working orders in a fixed table. A ticket names a place and the order that it was given to, so that an old ticket opens nothing.

use infra_types::{Decimal, Side};

use crate::reservation::Effect;

use super::LocalError;

/// What a caller keeps of an approved order until it is over. A ticket ends with its order: what is over cannot be settled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(super) place: u32,
    pub(super) generation: u32,
}

/// What an order holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Working {
    pub(super) route: u32,
    pub(super) side: Side,
    pub(super) effect: Effect,
    pub(super) held: Held,
}

/// What is taken back when an order ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// Base units that may still fill.
    pub(super) remaining: Decimal,
    /// Account currency at 1e-4.
    pub(super) money: i64,
    /// Firm currency at 1e-4.
    pub(super) money_firm: i64,
    /// Base units at 1e-8: of the position for an exit, of the long or short counter for an opening order.
    pub(super) qty: i64,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    working: Option<Working>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Orders {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Orders {
    pub(super) fn new(max: u32) -> Self {
        let places = (0..max).map(|_| Place { generation: 0, working: None }).collect();
        // The lowest places first: they stay in the cache.
        Self { places, free: (0..max).rev().collect() }
    }

    /// How many work.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn max(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(super) fn put(&mut self, working: Working) -> Option<Ticket> {
        let place = self.free.pop()?;
        let at = &mut self.places[place as usize];
        at.working = Some(working);
        Some(Ticket { place, generation: at.generation })
    }

    pub(super) fn get(&self, ticket: Ticket) -> Result<&Working, LocalError> {
        let place = self.places.get(ticket.place as usize).filter(|p| p.generation == ticket.generation);
        place.and_then(|p| p.working.as_ref()).ok_or(LocalError::UnknownTicket)
    }

    /// Writes what the order holds now; the place of one that holds nothing is free again.
    pub(super) fn set(&mut self, ticket: Ticket, held: Held) {
        let Some(place) = self.places.get_mut(ticket.place as usize) else { return };
        if held.remaining.is_zero() {
            place.working = None;
            // After 2^32 orders in one place a ticket that was kept all the time would open again.
            place.generation = place.generation.wrapping_add(1);
            self.free.push(ticket.place);
        } else if let Some(working) = &mut place.working {
            working.held = held;
        }
    }
}
