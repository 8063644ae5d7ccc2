// Sends a body of unknown length with net/http: go run reader.go URL TOKEN KEY
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	url, token, key := os.Args[1], os.Args[2], os.Args[3]
	// Hidden behind a reader of several parts, the length is not known.
	body := io.MultiReader(strings.NewReader(`{"keyUuid":`), strings.NewReader(fmt.Sprintf("%q}", key)))
	request, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	fmt.Println(response.StatusCode, string(text))
}
