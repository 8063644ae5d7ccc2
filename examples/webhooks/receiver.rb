# Receives webhooks, verifies their signatures and ignores repetitions: ruby receiver.rb PORT. The secret is in WEBHOOK_SECRET.
# It needs Ruby 3.0 and nothing besides. It prints the id and the type of each new event.
require "json"
require "openssl"
require "socket"

KEY = ENV.fetch("WEBHOOK_SECRET", "").delete_prefix("whsec_").unpack1("m")
abort "set WEBHOOK_SECRET to the secret of the webhook, which begins with whsec_" if KEY.bytesize < 24
TOLERANCE = 300 # seconds
MAX_BODY = 256 * 1024
SEEN = {} # Use a table with a unique key, so that it outlives the process.
LOCK = Mutex.new

def valid?(headers, body)
  timestamp = headers.fetch("webhook-timestamp", "")
  return false unless timestamp.match?(/\A\d+\z/) && (Time.now.to_i - timestamp.to_i).abs <= TOLERANCE
  signed = "#{headers.fetch("webhook-id", "")}.#{timestamp}.#{body}"
  expected = "v1," + [OpenSSL::HMAC.digest("SHA256", KEY, signed)].pack("m0")
  headers.fetch("webhook-signature", "").split(" ").any? do |signature|
    signature.bytesize == expected.bytesize && OpenSSL.fixed_length_secure_compare(signature, expected)
  end
end

def handle(headers, body)
  return 401 unless valid?(headers, body)
  event = JSON.parse(body)
  LOCK.synchronize do
    unless SEEN[event["id"]]
      puts "#{event["id"]} #{event["detail-type"]}"
      SEEN[event["id"]] = true # Only what is processed: an event that was not is delivered again.
    end
  end
  204
end

# A framework such as Rack does this for you.
def serve(client)
  while client.gets
    headers = {}
    while (line = client.gets&.chomp) && !line.empty?
      name, value = line.split(": ", 2)
      headers[name.downcase] = value
    end
    length = headers.fetch("content-length", "0").to_i
    return if length > MAX_BODY
    body = client.read(length)
    client.write("HTTP/1.1 #{handle(headers, body)} x\r\nContent-Length: 0\r\n\r\n")
  end
rescue SystemCallError
  # The client has closed the connection.
ensure
  client.close
end

$stdout.sync = true
server = TCPServer.new("127.0.0.1", ARGV.fetch(0).to_i)
puts "ready #{server.addr[1]}"
loop { Thread.new(server.accept) { |client| serve(client) } }
