// Writes a key and waits for the lock: go run write_key.go LOCK KEY [INDEX]. Who you are is in the environment
// (sandbox.env). It needs Go 1.19 and nothing besides.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

type command struct {
	KeyUUID        string `json:"keyUuid"`
	KeyIndexNumber *int   `json:"keyIndexNumber,omitempty"`
}

func writeKey(lock string, asked command) (json.RawMessage, error) {
	body, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	url := os.Getenv("KEYWRIGHT_URL") + "/locks/" + lock + "/WriteKey"
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("KEYWRIGHT_TOKEN"))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Prefer", "wait=10")
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		var failure struct{ Message string }
		_ = json.Unmarshal(answer, &failure)
		return nil, fmt.Errorf("%d: %s", response.StatusCode, failure.Message)
	}
	return answer, nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "say which lock and which key")
		os.Exit(2)
	}
	asked := command{KeyUUID: os.Args[2]}
	if len(os.Args) > 3 {
		index, err := strconv.Atoi(os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, "the index must be a number")
			os.Exit(2)
		}
		asked.KeyIndexNumber = &index
	}
	answer, err := writeKey(os.Args[1], asked)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(answer))
}
