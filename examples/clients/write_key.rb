# Writes a key and waits for the lock: ruby write_key.rb LOCK KEY [INDEX]. Who you are is in the environment (sandbox.env).

require "json"
require "net/http"

def write_key(lock, key, index = nil)
  uri = URI("#{ENV.fetch("KEYWRIGHT_URL")}/locks/#{lock}/WriteKey")
  request = Net::HTTP::Post.new(
    uri,
    "Authorization" => "Bearer #{ENV.fetch("KEYWRIGHT_TOKEN")}",
    "Content-Type" => "application/json",
    "Prefer" => "wait=10"
  )
  request.body = { keyUuid: key, keyIndexNumber: index }.compact.to_json
  response = Net::HTTP.start(uri.host, uri.port, use_ssl: uri.scheme == "https", read_timeout: 30) do |http|
    http.request(request)
  end
  answer = JSON.parse(response.body)
  abort "#{response.code}: #{answer["message"]}" unless response.is_a?(Net::HTTPOK)
  answer
end

lock, key, index = ARGV
puts JSON.generate(write_key(lock, key, index && Integer(index)))
