//! Vocabulary of a trading bot: ids, money, orders, events, time, context, secrets
