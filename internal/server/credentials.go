package server

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// ReadCredentials reads the admin key from the credentials file of a data directory.
func ReadCredentials(path string) (accessKeyID, secret string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), "=")
		if !ok {
			continue
		}
		switch strings.TrimSpace(name) {
		case "aws_access_key_id":
			accessKeyID = strings.TrimSpace(value)
		case "aws_secret_access_key":
			secret = strings.TrimSpace(value)
		}
	}
	if err := s.Err(); err != nil {
		return "", "", err
	}
	if accessKeyID == "" || secret == "" {
		return "", "", fmt.Errorf("%s holds no access key", path)
	}
	return accessKeyID, secret, nil
}
