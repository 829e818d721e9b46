// Writes into cases.json what Go makes of each template: `go run record.go`, in this directory.
//
// The functions beside Go's own are docker's, as its command line defines them.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type test struct {
	Template string  `json:"template"`
	Output   *string `json:"output"`
}

type file struct {
	Data  json.RawMessage `json:"data"`
	Cases []test          `json:"cases"`
}

var functions = template.FuncMap{
	"json": func(v any) string {
		buf := &bytes.Buffer{}
		enc := json.NewEncoder(buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			panic(err)
		}
		return strings.TrimSpace(buf.String())
	},
	"split": strings.Split,
	"join": func(list []any, separator string) string {
		words := make([]string, len(list))
		for i, one := range list {
			words[i] = one.(string)
		}
		return strings.Join(words, separator)
	},
	"title": strings.Title,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(source string, prefix, suffix int) string {
		if source == "" {
			return source
		}
		return strings.Repeat(" ", prefix) + source + strings.Repeat(" ", suffix)
	},
	"truncate": func(source string, length int) string {
		if len(source) < length {
			return source
		}
		return source[:length]
	},
}

// Whole numbers as Go's, which are not floating in docker's structures either.
func whole(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return int(n)
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return v
}

func render(text string, data any) (result *string) {
	defer func() {
		if recover() != nil {
			result = nil
		}
	}()
	t, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil
	}
	var out strings.Builder
	if err := t.Execute(&out, data); err != nil {
		return nil
	}
	made := out.String()
	return &made
}

func main() {
	read, err := os.ReadFile("cases.json")
	if err != nil {
		panic(err)
	}
	var f file
	if err := json.Unmarshal(read, &f); err != nil {
		panic(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(f.Data))
	decoder.UseNumber()
	var data any
	if err := decoder.Decode(&data); err != nil {
		panic(err)
	}
	data = whole(data)
	for i := range f.Cases {
		f.Cases[i].Output = render(f.Cases[i].Template, data)
	}
	var out bytes.Buffer
	out.WriteString("{\n\"data\": ")
	out.Write(f.Data)
	out.WriteString(",\n\"cases\": [")
	for i, one := range f.Cases {
		if i > 0 {
			out.WriteString(",")
		}
		enc := &bytes.Buffer{}
		e := json.NewEncoder(enc)
		e.SetEscapeHTML(false)
		if err := e.Encode(one); err != nil {
			panic(err)
		}
		out.WriteString("\n" + strings.TrimSpace(enc.String()))
	}
	out.WriteString("\n]\n}\n")
	if err := os.WriteFile("cases.json", out.Bytes(), 0o644); err != nil {
		panic(err)
	}
}
