//! The twenty lines of the README: an order through the gate to a venue that fills everything, and what is left of it.

use async_trait::async_trait;
use infra_factory::{create_infrastructure, gate::*, risk_engine::Quote, types::*};

/// A venue in ten lines. A real one sends the order over the network here.
struct PaperVenue;

#[async_trait]
impl OrderSink for PaperVenue {
    async fn place(&self, order: Approved<Order>) -> Placement {
        Placement::Acknowledged { venue_order_id: format!("paper-{}", order.order().id) }
    }
    async fn cancel(&self, _: &OrderId) -> Result<(), SinkError> {
        Ok(())
    }
    async fn query(&self, _: &OrderId) -> Result<VenueOrder, SinkError> {
        Ok(VenueOrder::NotFound)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let infra = create_infrastructure("development").await?;
    let account: AccountId = "main".parse()?;
    infra.risk().register_instrument(bitcoin()?)?;
    infra.risk().open_account(account.clone(), "USDT".parse()?, Decimal::from(10_000)).await?;
    let bitcoin = bitcoin()?.id;
    let quote = Quote { bid: "87232.00".parse()?, ask: "87232.01".parse()?, at: SystemClock.wall() };
    infra.risk().update_market(&bitcoin, quote)?;

    let buy = |id: &str, qty: &str| -> Result<Order, InvalidValue> {
        let (strategy, price) = ("demo".parse()?, "87232.01".parse()?);
        Ok(Order::limit(id.parse()?, account.clone(), strategy, bitcoin.clone(), Side::Buy, qty.parse()?, price))
    };
    // Halt? Limits? Reserve, write down: only then is there something that can be sent.
    let approved = infra.gate().approve(buy("order-1", "0.05")?).await?;
    match infra.gate().place(approved, &PaperVenue).await? {
        Placed::AtVenue(order) => println!("placed:   {} is {:?}", order.order.id, order.status),
        other => return Err(format!("not at the venue: {other:?}").into()),
    }

    let fee = Money::new(Decimal::new(436, 2), "USDT".parse()?);
    let fill = Fill { qty: "0.05".parse()?, price: "87232.01".parse()?, fee, is_maker: false };
    let filled = Execution {
        id: "e-1".parse()?,
        order: "order-1".parse()?,
        at: SystemClock.wall(),
        kind: ExecutionKind::Filled(fill),
    };
    infra.gate().report(filled).await?;
    let position = infra.risk().position(&account, &bitcoin).ok_or("no position")?;
    println!("position: {} BTC, realised {} USDT", position.qty, position.realised);

    // 0.05 BTC is half of the 80 % of 10,000 USDT that this account may be exposed; another 0.05 is too much.
    match infra.gate().approve(buy("order-2", "0.05")?).await {
        Err(refused) => println!("refused:  {refused}"),
        Ok(_) => return Err("the second order should not have passed".into()),
    }
    infra.emergency().halt("operator", "end of the demonstration").await?;
    println!(
        "halted:   {}",
        infra.gate().approve(buy("order-3", "0.001")?).await.err().ok_or("a halt that lets orders pass")?
    );
    infra.close().await;
    Ok(())
}

fn bitcoin() -> Result<InstrumentSpec, InvalidValue> {
    Ok(InstrumentSpec {
        id: "paper/BTCUSDT".parse()?,
        base: "BTC".parse()?,
        quote: "USDT".parse()?,
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 5),
        qty_min: "0.00001".parse()?,
        qty_max: "9000".parse()?,
        notional_min: Decimal::from(5),
        maker_fee_rate: Decimal::new(1, 3),
        taker_fee_rate: Decimal::new(1, 3),
    })
}
