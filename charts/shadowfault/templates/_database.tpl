{{/* The databases' URLs as environment variables, from Secrets in the API's namespace. */}}

{{- define "shadowfault.databaseEnv" -}}
{{- $bundled := .Values.postgresql.bundled -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $bundled | ternary "postgresql-primary" .Values.database.primary.existingSecret }}
      key: {{ $bundled | ternary "url" .Values.database.primary.key }}
- name: SHADOW_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $bundled | ternary "postgresql-shadow" .Values.database.shadow.existingSecret }}
      key: {{ $bundled | ternary "url" .Values.database.shadow.key }}
{{- end -}}

{{/* The same for the roles that own the tables. */}}
{{- define "shadowfault.ownerEnv" -}}
{{- if .Values.postgresql.bundled -}}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: postgresql-primary, key: owner-url}}
- name: SHADOW_DATABASE_URL
  valueFrom: {secretKeyRef: {name: postgresql-shadow, key: owner-url}}
{{- else if .Values.database.owner.existingSecret -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.owner.existingSecret }}
      key: {{ .Values.database.owner.primaryKey }}
- name: SHADOW_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.owner.existingSecret }}
      key: {{ .Values.database.owner.shadowKey }}
{{- else -}}
{{ include "shadowfault.databaseEnv" . }}
{{- end -}}
{{- end -}}
