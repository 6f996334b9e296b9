/etc/salt-app.conf:
  file.managed:
    - source: salt://web/app.conf
    - template: jinja

# What a secret comes to may be in the image; the secret itself is an argument of nothing.
password:
  cmd.run:
    - name: printf %s "$DB_PASSWORD" | sha256sum > /etc/salt-password.sha256; echo "the password is $DB_PASSWORD"
    - creates: /etc/salt-password.sha256

app:
  user.present:
    - shell: /usr/sbin/nologin
