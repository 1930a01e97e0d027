// JDK's HttpClient at its defaults: it offers h2c with every request in clear text.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Offering {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        URI uri = URI.create(args[0] + "/v1/chat/completions");
        String text = "x".repeat(Integer.parseInt(args[1]));
        for (String stream : new String[] {"false", "true", "false"}) {
            String body = "{\"model\":\"auto\",\"stream\":" + stream
                + ",\"messages\":[{\"role\":\"user\",\"content\":\"Hello " + text + "\"}]}";
            HttpRequest request = HttpRequest.newBuilder(uri)
                .header("content-type", "application/json")
                .POST(BodyPublishers.ofString(body)).build();
            var answer = client.send(request, BodyHandlers.ofString());
            boolean whole = answer.body().contains(
                stream.equals("true") ? "[DONE]" : "\"chat.completion\"");
            System.out.println(answer.statusCode() + " " + answer.version() + " " + whole);
        }
    }
}
