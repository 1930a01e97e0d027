{{/* rules/'s groups as `monitoring.alerts` wants them. The files stand as they are for who has no helm. */}}

{{/* An expression with another threshold, which is the number that it ends in; a band's (1.25 and 0.8) are each other's inverse.
(name expression threshold) */}}
{{- define "joulegate.withThreshold" -}}
{{- $text := index . 1 | trim -}}
{{- $number := index . 2 -}}
{{- if contains "> 1.25" $text -}}
{{- if lt (float64 $number) 1.0 -}}
{{- fail (printf "monitoring.alerts.overrides.%s.threshold: a ratio of at least 1" (index . 0)) -}}
{{- end -}}
{{- $text | replace "> 1.25" (printf "> %v" $number) | replace "< 0.8" (printf "< %v" (divf 1 $number)) -}}
{{- else if regexMatch "> [0-9.]+$" $text -}}
{{- regexReplaceAll "> [0-9.]+$" $text (printf "> %v" $number) -}}
{{- else -}}
{{- fail (printf "monitoring.alerts.overrides.%s: this alert has no threshold" (index . 0)) -}}
{{- end -}}
{{- end -}}

{{/* One rule as a list, empty where it is not wanted. (root rule) */}}
{{- define "joulegate.tunedRule" -}}
{{- $wanted := (index . 0).Values.monitoring.alerts -}}
{{- $rule := index . 1 -}}
{{- if $rule.alert -}}
{{- $own := get $wanted.overrides $rule.alert | default dict -}}
{{- if hasKey $own "threshold" -}}
{{- $_ := set $rule "expr" (include "joulegate.withThreshold" (list $rule.alert $rule.expr $own.threshold)) -}}
{{- end -}}
{{- with get $own "for" -}}{{- $_ := set $rule "for" . -}}{{- end -}}
{{- $severity := $own.severity | default ($rule.labels | default dict).severity -}}
{{- $labels := merge (dict) ($own.labels | default dict) $wanted.labels ($rule.labels | default dict) -}}
{{- with $severity -}}{{- $_ := set $labels "severity" . -}}{{- end -}}
{{- with $labels -}}{{- $_ := set $rule "labels" . -}}{{- end -}}
{{- $told := $rule.annotations | default dict -}}
{{- if not $wanted.runbookUrl -}}
{{- $_ := unset $told "runbook_url" -}}
{{- else if hasKey $told "runbook_url" -}}
{{- $_ := set $told "runbook_url" (regexReplaceAllLiteral "^[^#]*" (get $told "runbook_url") $wanted.runbookUrl) -}}
{{- end -}}
{{- if ne (get $own "enabled" | toString) "false" -}}{{- list $rule | toYaml -}}{{- else -}}[]{{- end -}}
{{- else -}}
{{- list $rule | toYaml -}}
{{- end -}}
{{- end -}}

{{- define "joulegate.ruleGroups" -}}
{{- $groups := list -}}
{{- $alerts := list -}}
{{- range $path, $_ := .Files.Glob "rules/*.yaml" -}}
{{- /* promtool's tests may lie there too; they have no groups. */ -}}
{{- range ($.Files.Get $path | fromYaml).groups -}}
{{- $rules := list -}}
{{- range .rules -}}
{{- with .alert -}}{{- $alerts = append $alerts . -}}{{- end -}}
{{- $rules = concat $rules (include "joulegate.tunedRule" (list $ .) | fromYamlArray) -}}
{{- end -}}
{{- if $rules -}}{{- $groups = append $groups (set . "rules" $rules) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.monitoring.alerts.overrides -}}
{{- if not (has $name $alerts) -}}
{{- fail (printf "monitoring.alerts.overrides: no alert %q (there are: %s)" $name ($alerts | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- $groups | toYaml -}}
{{- end -}}
