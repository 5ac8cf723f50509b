//! Pulling with somebody else's client: oci-client, which knows nothing of larder.

use oci_distribution::Client;
use oci_distribution::Reference;
use oci_distribution::client::ClientConfig;
use oci_distribution::client::ClientProtocol;
use oci_distribution::secrets::RegistryAuth;

use crate::support::Larder;
use crate::support::Upstream;
use crate::support::images::image;

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_pulls_cold_and_warm() {
    let upstream = Upstream::start().await;
    let image = image(100, &[200_000]);
    upstream.add("library/app", "1", &image);
    let larder = Larder::before(&upstream).await;
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let client = Client::try_from(config).unwrap();
    let name = Reference::with_tag(larder.address.to_string(), "docker.io/library/app".into(), "1".into());
    let anonymous = RegistryAuth::Anonymous;
    for round in ["cold", "warm"] {
        let digest = client.fetch_manifest_digest(&name, &anonymous).await.unwrap();
        assert_eq!(digest, image.digest.to_string(), "{round}");
        let (bytes, digest) = client.pull_manifest_raw(&name, &anonymous, &[image.media_type.as_str()]).await.unwrap();
        assert!(bytes[..] == image.manifest[..] && digest == image.digest.to_string(), "{round}");
        for (digest, content) in &image.blobs {
            let mut got = Vec::new();
            client.pull_blob(&name, digest.to_string().as_str(), &mut got).await.unwrap();
            assert!(got == *content, "{round} {digest}");
        }
        larder.settled().await;
    }
    assert_eq!(upstream.asked(|s| s.method == "GET").len(), 1 + image.blobs.len());
}
