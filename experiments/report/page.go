package report

import (
	"bytes"
	"io"
	"text/template"
)

// page is the report as HTML: without scripts, without anything from elsewhere.
const page = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.R.Question | html}}</title>
<style>
{{.Style}}
body{background:var(--ground);color:var(--ink);font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}
th,td{border-bottom:1px solid var(--faint);padding:.25rem .6rem;text-align:right;white-space:nowrap}
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}
pre{border:1px solid var(--faint);padding:.8rem;overflow-x:auto;font-size:.85rem}
.broken,.unknown{color:var(--c1);font-weight:bold}.holds{color:var(--c2)}
svg{max-width:100%;height:auto}figure{margin:1rem 0;break-inside:avoid}figcaption{font-size:.85rem}
dt{font-weight:bold}dd{margin:0 0 .3rem 0}
@media print{body{max-width:none;margin:0}}
</style>
</head>
<body>
<h1>{{.R.Question | html}}</h1>
<p><strong>{{.R.Answer | html}}.</strong></p>
{{if .Open}}<ul>
{{range .Open}}<li><span class="{{.Verdict | html}}">{{.Verdict | html}}</span> {{.Cell | html}}: {{.Bound | html}} ({{.Value | html}})</li>
{{end}}</ul>{{end}}
<h2>Figures</h2>
{{range .Figures}}<figure>{{.Drawing}}<figcaption>{{.Title | html}}</figcaption></figure>
{{end}}
{{if .R.Failures}}<h2>What failed</h2>
<ul>
{{range .R.Failures}}<li>run {{.Number | html}}, {{.Cell | html}}: {{.Failure.Step | html}}: {{.Failure.Error | html}}{{with .Failure.Hint}} <em>{{. | html}}</em>{{end}}{{with .Failure.Logs}} (logs: {{. | html}}){{end}}</li>
{{end}}</ul>{{end}}
{{if .R.Differing}}<h2>What differs</h2>
<ul>
{{range .R.Differing}}<li>run {{.Number | html}}, {{.Cell | html}}: {{range .Differs}}{{. | html}}<br>{{end}}</li>
{{end}}</ul>{{end}}
{{if .Skipped}}<h2>What was skipped</h2>
<ul>
{{range .Skipped}}<li>{{.Name | html}}: the kernel lacks {{.Lacks | html}}</li>
{{end}}</ul>{{end}}
<h2>The numbers</h2>
<details{{if not .Many}} open{{end}}><summary>{{len .Rows}} rows</summary>
<table>
<thead><tr><th>measure</th><th>cell</th>{{range .Heads}}<th>{{. | html}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr>{{range .}}<td>{{. | html}}</td>{{end}}</tr>
{{end}}</tbody>
</table>
</details>
<details><summary>What must hold and does: {{len .Held}}</summary>
<ul>
{{range .Held}}<li><span class="holds">holds</span> {{.Cell | html}}: {{.Bound | html}} ({{.Value | html}})</li>
{{end}}</ul>
</details>
{{if .R.Threats}}<h2>Threats to validity</h2>
<ul>
{{range .R.Threats}}<li>{{. | html}}</li>
{{end}}</ul>{{end}}
<h2>How to repeat it</h2>
<p>With this file, as <code>experiment.yaml</code>: <code>crucible experiment run experiment.yaml</code></p>
<pre>{{.Experiment | html}}</pre>
<dl>
{{range .Facts}}<dt>{{index . 0 | html}}</dt><dd>{{index . 1 | html}}</dd>
{{end}}</dl>
</body>
</html>
`

// WriteHTML writes the report as a page.
func (r *Report) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return err
	}
	type drawn struct {
		Title   string
		Drawing string
	}
	type judged struct {
		Judgement
		Value string
	}
	data := struct {
		R          *Report
		Style      string
		Heads      []string
		Rows       [][]string
		Many       bool // cells: the table is closed at first
		Open, Held []judged
		Skipped    []Cell
		Figures    []drawn
		Facts      [][2]string
		Experiment string
	}{
		R: r, Many: len(r.Cells) > mostRows, Facts: facts(r.Provenance), Experiment: r.experiment,
		Style: (lightStyle + "\n@media (prefers-color-scheme: dark){" + darkStyle + "}\n@media print{" + lightStyle + "}\n" + figureStyle),
	}
	for _, c := range columns {
		data.Heads = append(data.Heads, c.head)
	}
	r.rows(func(measure string, c *Cell, s *Series) {
		row := []string{measure, c.Name}
		for _, column := range columns {
			row = append(row, column.value(c, s))
		}
		data.Rows = append(data.Rows, row)
	})
	for _, j := range worst(r.Judgements) {
		one := judged{j, text(j.Unit, j.Value)}
		if j.Verdict == Holds {
			data.Held = append(data.Held, one)
		} else {
			data.Open = append(data.Open, one)
		}
	}
	for _, c := range r.Cells {
		if c.Lacks != "" {
			data.Skipped = append(data.Skipped, c)
		}
	}
	for _, f := range r.figures() {
		var b bytes.Buffer
		f.svg(&b, false)
		data.Figures = append(data.Figures, drawn{f.title, b.String()}) // its texts are escaped
	}
	return t.Execute(w, data)
}
