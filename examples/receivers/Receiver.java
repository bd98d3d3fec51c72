// A receiver that demands a client certificate, and takes those in clients.crt.
//
//     STORE_PASSWORD=… java Receiver.java DIRECTORY HOST PORT
//
// DIRECTORY holds server.p12 with the server's certificate and key, and as clients.crt the bundle.crt of the ConfigMap
// <name>-client-certificate. It is read anew for each handshake: a new bundle needs no restart.
//
// The JDK's HttpsServer ends a refused connection without an alert: Postrider reports ConnectionClosed.

import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

public class Receiver {
    public static void main(String[] arguments) throws Exception {
        Path directory = Path.of(arguments[0]);
        char[] password = System.getenv("STORE_PASSWORD").toCharArray();
        KeyStore store = KeyStore.getInstance(directory.resolve("server.p12").toFile(), password);
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, password);
        SSLContext context = SSLContext.getInstance("TLS");
        TrustManager clients = new Clients(directory.resolve("clients.crt"));
        context.init(keys.getKeyManagers(), new TrustManager[] {clients}, null);

        InetSocketAddress address = new InetSocketAddress(arguments[1], Integer.parseInt(arguments[2]));
        HttpsServer server = HttpsServer.create(address, 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context) {
            @Override
            public void configure(HttpsParameters parameters) {
                SSLParameters tls = getSSLContext().getDefaultSSLParameters();
                tls.setNeedClientAuth(true);
                parameters.setSSLParameters(tls);
            }
        });
        // Called only for a client that is known.
        server.createContext("/", exchange -> {
            var client = ((HttpsExchange) exchange).getSSLSession().getPeerPrincipal();
            System.out.println("event " + exchange.getRequestHeaders().getFirst("webhook-id") + " from " + client);
            exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
        System.out.println("listening " + server.getAddress());
    }

    /** The clients in a bundle. */
    private record Clients(Path bundle) implements X509TrustManager {
        @Override
        public void checkClientTrusted(X509Certificate[] chain, String type) throws CertificateException {
            List<X509Certificate> known = read();
            try {
                KeyStore trusted = KeyStore.getInstance("PKCS12");
                trusted.load(null, null);
                for (X509Certificate certificate : known) {
                    trusted.setCertificateEntry("certificate " + trusted.size(), certificate);
                }
                var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
                factory.init(trusted);
                ((X509TrustManager) factory.getTrustManagers()[0]).checkClientTrusted(chain, type);
            } catch (GeneralSecurityException | java.io.IOException error) {
                throw new CertificateException(error);
            }
            // The authority issues to others, too: only the certificates that are in the bundle themselves are taken.
            if (!known.contains(chain[0])) {
                throw new CertificateException(chain[0].getSubjectX500Principal() + " is not in " + bundle);
            }
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String type) throws CertificateException {
            throw new CertificateException("this is a server");
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            try {
                return read().toArray(X509Certificate[]::new);
            } catch (CertificateException error) {
                return new X509Certificate[0];
            }
        }

        private List<X509Certificate> read() throws CertificateException {
            List<X509Certificate> certificates = new ArrayList<>();
            try (InputStream file = Files.newInputStream(bundle)) {
                for (var certificate : CertificateFactory.getInstance("X.509").generateCertificates(file)) {
                    certificates.add((X509Certificate) certificate);
                }
            } catch (java.io.IOException error) {
                throw new CertificateException(error);
            }
            return certificates;
        }
    }
}
