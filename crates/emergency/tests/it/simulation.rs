//! The short form of the simulated part of the example `prove_halt`.

#[path = "../../examples/prove_halt/sim.rs"]
mod sim;

#[test]
fn two_hundred_schedules_let_nothing_through_after_a_lease_and_restore_nothing_weaker() {
    let figures = sim::simulate(1, 200, |seed, figures| assert!(figures.holds(), "seed {seed}\n{figures}"));
    println!("{figures}");
    // The schedules must reach what they are about.
    assert!(figures.stops > 1_000 && figures.rearms > 300 && figures.restored > 500, "{figures}");
    assert!(figures.open > 10_000 && figures.open_within_lease > 500, "{figures}");
}
