//! A relay to a server that changes what it says, as long as it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Where the relay listens, and whether it lies.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    pub(crate) lies: Arc<AtomicBool>,
}

/// Says `to` where `server` says `from`. They are of one length, as the lengths in front of them are not changed.
pub(crate) async fn relay(server: SocketAddr, from: String, to: String) -> Relay {
    assert_eq!(from.len(), to.len());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (addr, lies) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
    let lying = lies.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from, to, lying) = (from.clone(), to.clone(), lying.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut buffer = vec![0; 65_536];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    if lying.load(Ordering::Relaxed) {
                        replace(&mut buffer[..n], from.as_bytes(), to.as_bytes());
                    }
                    if to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Relay { addr, lies }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    for at in 0..bytes.len().saturating_sub(from.len() - 1) {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to);
        }
    }
}
