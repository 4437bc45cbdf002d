package clients_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"flotilla/internal/server"
	"flotilla/internal/server/servertest"
)

// TestTransports connects without client certificates: WebSocket signed with SigV4,
// and a custom authorizer over WebSocket and over MQTT.
func TestTransports(t *testing.T) {
	const function = "arn:aws:lambda:us-east-1:123456789012:function:vouch"
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		document := servertest.PolicyDocument("123456789012", "iot:Connect client/m-*", "iot:Publish topic/m/*", "iot:Subscribe topicfilter/m/*", "iot:Receive topic/m/*")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"isAuthenticated": true, "principalId": "pump", "policyDocuments": []string{document},
			"disconnectAfterInSeconds": 3600, "refreshAfterInSeconds": 3600,
		})
	}))
	defer hook.Close()
	n := servertest.Start(t, func(c *server.Config) { c.Function.Endpoints = map[string]string{function: hook.URL} }).Node(0)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.IoT().CreateAuthorizer(t.Context(), &iot.CreateAuthorizerInput{
		AuthorizerName: new("vouch"), AuthorizerFunctionArn: new(function), Status: types.AuthorizerStatusActive, TokenKeyName: new("token"),
		TokenSigningPublicKeys: map[string]string{"first": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
	}); err != nil {
		t.Fatal(err)
	}
	const token = "let-me-in"
	sum := sha256.Sum256([]byte(token))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(n.Endpoints().HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{
		"host": "localhost", "port": number, "ca": filepath.Join(n.Config.Data, "ca", "root.pem"), "region": "us-east-1",
		"accessKey": n.AccessKey, "secretKey": n.Secret,
		"authorizer": "vouch", "token": token, "signature": base64.StdEncoding.EncodeToString(signature),
	})
	if err != nil {
		t.Fatal(err)
	}
	story(t, n, "node/transports.js", string(settings))
}
