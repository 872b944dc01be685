package secrets

// rule is a form that secrets of a kind have. Each expression begins with fixed
// text, which is what makes it fast to search for.
type rule struct {
	kind string
	expr string
}

func rules() []rule {
	return []rule{
		{"private key", `-----BEGIN (?:[A-Z]+ ){0,2}PRIVATE KEY-----\r?\n(?:[A-Za-z0-9+/=]{16}|Proc-Type: )`},
		{"age key", `AGE-SECRET-KEY-1[0-9A-Z]{58}`},
		{"AWS key", `AKIA[A-Z2-7]{16}`},
		{"AWS key", `ASIA[A-Z2-7]{16}`},
		{"GitHub token", `ghp_[A-Za-z0-9]{36}`},
		{"GitHub token", `gho_[A-Za-z0-9]{36}`},
		{"GitHub token", `ghs_[A-Za-z0-9]{36}`},
		{"GitHub token", `github_pat_[A-Za-z0-9_]{82}`},
		{"GitLab token", `glpat-[A-Za-z0-9_-]{20}`},
		{"Slack token", `xox[abprs]-[0-9]{6,}-[0-9A-Za-z-]{10,}`},
		{"Google key", `AIza[0-9A-Za-z_-]{35}`},
		{"JSON web token", `eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`},
		{"bearer token", `earer [A-Za-z0-9._~+/-]{20,512}=*`}, // Bearer or bearer
	}
}

// secretName is what a variable is called that holds one.
const secretName = `(?i)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?)$`
