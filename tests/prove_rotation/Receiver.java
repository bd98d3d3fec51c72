import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.InputStream;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.HexFormat;
import java.util.concurrent.Executors;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

/**
 * The JDK's own HTTPS server, which demands a client certificate and prints a line for each request:
 *
 * <pre>request WEBHOOK-ID SHA-256 NOT-AFTER RECEIVED-AT</pre>
 *
 * with times in milliseconds of the Unix epoch. It is printed before the answer goes out: whenever this
 * program is killed, what it acknowledged has been told.
 *
 * <pre>KEYSTORE_PASSWORD=... java Receiver PORT KEYSTORE.p12 TRUSTED.pem</pre>
 */
public final class Receiver {
    private static final int THREADS = 8;

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        SSLContext tls = tls(Path.of(arguments[1]), System.getenv("KEYSTORE_PASSWORD"), Path.of(arguments[2]));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);

        HttpsServer server = HttpsServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(tls) {
            @Override
            public void configure(HttpsParameters connection) {
                SSLParameters parameters = getSSLContext().getDefaultSSLParameters();
                parameters.setNeedClientAuth(true);
                connection.setSSLParameters(parameters);
            }
        });
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.createContext("/", exchange -> {
            long receivedAt = System.currentTimeMillis();
            try (exchange; InputStream body = exchange.getRequestBody()) {
                body.readAllBytes();
                var session = ((HttpsExchange) exchange).getSSLSession();
                var leaf = (X509Certificate) session.getPeerCertificates()[0];
                var digest = MessageDigest.getInstance("SHA-256").digest(leaf.getEncoded());
                out.println("request " + exchange.getRequestHeaders().getFirst("webhook-id") + " "
                    + HexFormat.of().formatHex(digest) + " " + leaf.getNotAfter().getTime() + " " + receivedAt);
                exchange.sendResponseHeaders(200, -1);
            } catch (java.security.GeneralSecurityException error) {
                throw new IllegalStateException(error);
            }
        });
        server.start();
        out.println("listening");
    }

    private static SSLContext tls(Path keystore, String password, Path trusted) throws Exception {
        var keys = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(keystore)) {
            keys.load(in, password.toCharArray());
        }
        var keyManagers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keyManagers.init(keys, password.toCharArray());

        var authorities = KeyStore.getInstance("PKCS12");
        authorities.load(null, null);
        try (InputStream in = Files.newInputStream(trusted)) {
            int n = 0;
            for (var authority : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                authorities.setCertificateEntry("authority-" + n++, authority);
            }
        }
        var trustManagers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trustManagers.init(authorities);

        var tls = SSLContext.getInstance("TLS");
        tls.init(keyManagers.getKeyManagers(), trustManagers.getTrustManagers(), null);
        return tls;
    }
}
